//! Web servers of updates: on the network of the machine under test, and where its peers are.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;

use sepulcher::image::toolbox::Toolbox;

use crate::Result;
use crate::netns::Netns;

/// Where the one on the machine's network is.
pub const ADDRESS: &str = "192.0.2.1";

/// Has a host with a server, at [`ADDRESS`] beside `hub`'s other hosts, for as long as it is held.
pub fn open(toolbox: &Toolbox, hub: &Netns, folder: &Path) -> Result<Netns> {
    let netns = Netns::new(toolbox, "depot")?;
    netns.plug_into(hub, "br0", "depot", &format!("{ADDRESS}/24"))?;
    serve_on(&netns, ADDRESS, folder)?;
    Ok(netns)
}

/// Serves the files of a folder, by name, at port 80 of an address that a host has, until the program ends.
pub fn serve_on(host: &Netns, address: &str, folder: &Path) -> Result<()> {
    let listener = host.within(|| Ok(TcpListener::bind((address, 80))?))?;
    let folder = folder.to_owned();
    // A caller that goes away is no concern of the others.
    thread::spawn(move || listener.incoming().flatten().for_each(|stream| drop(serve(stream, &folder))));
    Ok(())
}

fn serve(mut stream: TcpStream, folder: &Path) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let name = request.split(' ').nth(1).and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    match file(folder, name) {
        Some(path) => {
            let mut file = File::open(&path)?;
            let length = file.metadata()?.len();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
            io::copy(&mut file, &mut stream).map(drop)
        }
        None => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
    }
}

/// The file of that name, straight in the folder.
fn file(folder: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(folder).ok()?.flatten().find(|entry| entry.file_name() == name).map(|entry| entry.path())
}

//! A web server of updates, on the network of the machine under test.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sepulcher::image::toolbox::Toolbox;

use crate::Result;
use crate::netns::Netns;

/// Where it is.
pub const ADDRESS: &str = "192.0.2.1";

/// Serves the files of a folder, by name, until the program ends.
pub struct Depot {
    _netns: Netns,
}

impl Depot {
    /// Opens at port 80 of [`ADDRESS`], beside `hub`'s other hosts.
    pub fn open(toolbox: &Toolbox, hub: &Netns, folder: &Path) -> Result<Self> {
        let netns = Netns::new(toolbox, "depot")?;
        netns.plug_into(hub, "br0", "depot", &format!("{ADDRESS}/24"))?;
        let place = File::open(Path::new("/run/netns").join(&netns.name))?;
        let (folder, (opened, told)) = (folder.to_owned(), channel());
        thread::spawn(move || {
            // A thread's namespace is its own, and that of the sockets it makes.
            let listener = move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(io::Error::from)
                .and_then(|()| TcpListener::bind((ADDRESS, 80)));
            match listener {
                Ok(listener) => {
                    // Who opened it waits for this.
                    let _ = opened.send(Ok(()));
                    // A caller that goes away is no concern of the others.
                    listener.incoming().flatten().for_each(|stream| drop(serve(stream, &folder)));
                }
                Err(error) => drop(opened.send(Err(error))),
            }
        });
        told.recv()??;
        Ok(Self { _netns: netns })
    }
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

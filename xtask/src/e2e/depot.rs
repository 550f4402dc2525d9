//! Servers of updates: on the network of the machine under test, which has a name, and where its peers are.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::thread;

use sepulcher::image::toolbox::Toolbox;

use crate::Result;
use crate::netns::Netns;

/// Where the one on the machine's network is.
pub const ADDRESS: &str = "192.0.2.1";

/// Its name, which a DNS server at [`ADDRESS`] knows, and no other.
pub const NAME: &str = "updates.lychd.test";

/// Has a host with a web server and a DNS server, at [`ADDRESS`] beside `hub`'s other hosts, for as long as it is held.
pub fn open(toolbox: &Toolbox, hub: &Netns, folder: &Path) -> Result<Netns> {
    let netns = Netns::new(toolbox, "depot")?;
    netns.plug_into(hub, "br0", "depot", &format!("{ADDRESS}/24"))?;
    serve_on(&netns, ADDRESS, folder)?;
    let socket = netns.within(|| Ok(UdpSocket::bind((ADDRESS, 53))?))?;
    let address: Ipv4Addr = ADDRESS.parse()?;
    thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, asker)) = socket.recv_from(&mut question) {
            if let Some(answer) = answer(&question[..length], address) {
                // Who does not get it asks again.
                let _ = socket.send_to(&answer, asker);
            }
        }
    });
    Ok(netns)
}

/// What a DNS server answers that knows one host (RFC 1035): its address, no other record of it, and nobody else.
fn answer(asked: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    let (header, rest) = asked.split_at_checked(12)?;
    let end = rest.iter().position(|&byte| byte == 0)?;
    let question = rest.get(..end + 5)?;
    // The lengths of labels stand where a name has its dots.
    let same = |(&asked, known): (&u8, u8)| asked.eq_ignore_ascii_case(&known) || known == b'.' && asked < 64;
    let asked = question.get(1..end).unwrap_or_default();
    let is_known = asked.len() == NAME.len() && asked.iter().zip(NAME.bytes()).all(same);
    // Type A, class IN.
    let is_address = is_known && question[end + 1..] == [0, 1, 0, 1];
    let code = if is_known { 0 } else { 3 };
    let mut answer =
        [&header[..2], &[0x81, 0x80 | code, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0], question].concat();
    if is_address {
        // The question's name, A, IN, for a minute.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
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

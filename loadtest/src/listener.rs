//! Which process listens at an address of this machine.

use std::{
    fs,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
};

use crate::target::Address;

/// The state of a TCP socket that listens, as /proc/net/tcp has it.
const LISTEN: &str = "0A";
/// The flag of a unix socket that listens, as /proc/net/unix has it.
const ACCEPTS: &str = "00010000";

/// The one process that listens there; none where nobody does, several do, or this user may not see who does.
pub(crate) fn process(address: &Address) -> Option<u32> {
    let sockets = match address {
        Address::Tcp(address) => {
            let addresses: Vec<_> = address.to_socket_addrs().ok()?.collect();
            let tables = ["/proc/net/tcp", "/proc/net/tcp6"]
                .map(|table| fs::read_to_string(table).unwrap_or_default());
            tables.iter().flat_map(|table| tcp(table, &addresses)).collect()
        }
        Address::Unix(path) => unix(&fs::read_to_string("/proc/net/unix").ok()?, path),
    };
    let links: Vec<_> =
        sockets.iter().map(|inode: &String| PathBuf::from(format!("socket:[{inode}]"))).collect();
    let mut owners = fs::read_dir("/proc").ok()?.filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let mut files = fs::read_dir(format!("/proc/{pid}/fd"))
            .ok()?
            .filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        files.any(|link| links.contains(&link)).then_some(pid)
    });
    owners.next().filter(|_| owners.next().is_none())
}

/// Inodes of the sockets that listen at one of these addresses, or at its port on all of the machine's.
fn tcp(table: &str, addresses: &[SocketAddr]) -> Vec<String> {
    let wanted: Vec<_> = addresses
        .iter()
        .flat_map(|address| {
            let port = address.port();
            let any: [IpAddr; 2] = [[0; 4].into(), [0_u16; 8].into()];
            any.into_iter().chain([address.ip()]).map(move |ip| shown(ip, port))
        })
        .collect();
    let inode = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let listens = fields.get(3) == Some(&LISTEN) && wanted.iter().any(|wanted| fields[1] == wanted);
        listens.then(|| fields.get(9).map(|inode| (*inode).to_owned())).flatten()
    };
    table.lines().filter_map(inode).collect()
}

/// As the kernel writes it: words of 32 bits in the machine's order, the port in hexadecimal.
fn shown(ip: IpAddr, port: u16) -> String {
    let octets = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words = octets.as_chunks::<4>().0.iter().map(|word| format!("{:08X}", u32::from_ne_bytes(*word)));
    format!("{}:{port:04X}", words.collect::<String>())
}

/// Inodes of the sockets that listen at this path.
fn unix(table: &str, path: &Path) -> Vec<String> {
    let wanted = [path.to_owned(), path.canonicalize().unwrap_or_default()];
    let inode = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let listens = fields.get(3) == Some(&ACCEPTS)
            && fields.get(7).is_some_and(|at| wanted.iter().any(|wanted| wanted.as_path() == Path::new(at)));
        listens.then(|| fields[6].to_owned())
    };
    table.lines().filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::unix::net::UnixListener};

    use super::*;

    #[test]
    fn who_listens_is_found_by_address_and_by_path_and_nobody_where_nobody_does() {
        let own = Some(std::process::id());
        for bound in ["127.0.0.1:0", "0.0.0.0:0"] {
            let listener = TcpListener::bind(bound).unwrap();
            let port = listener.local_addr().unwrap().port();
            assert_eq!(process(&Address::Tcp(format!("127.0.0.1:{port}"))), own, "{bound}");
            assert_eq!(process(&Address::Tcp(format!("localhost:{port}"))), own, "{bound}");
            assert_eq!(
                process(&Address::Tcp(format!("127.0.0.2:{port}"))),
                own.filter(|_| bound.starts_with('0'))
            );
            drop(listener);
            assert_eq!(process(&Address::Tcp(format!("127.0.0.1:{port}"))), None);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(process(&Address::Unix(path.clone())), own);
        drop(listener);
        assert_eq!(process(&Address::Unix(path)), None);
    }

    #[test]
    fn addresses_are_written_as_the_kernel_does() {
        assert_eq!(shown([127, 0, 0, 1].into(), 8080), "0100007F:1F90");
        assert_eq!(shown([0_u16, 0, 0, 0, 0, 0, 0, 1].into(), 1), "00000000000000000000000001000000:0001");
    }
}

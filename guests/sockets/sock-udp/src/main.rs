//! Sockets without a runtime around them, each case by its name: datagrams, options, names, addresses.

use std::io::{Error, Read, Write};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::time::Duration;
use wasmedge_wasi_socket::socket::{AddressFamily, Socket, SocketType};
use wasmedge_wasi_socket::{TcpListener, TcpStream, UdpSocket, nslookup};

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["udp-echo", address] => udp_echo(address, ""),
        // As a service, which has no arguments.
        [] => udp_echo(&variable("LISTEN"), &variable("NAME")),
        ["udp-ask", address, text] => udp_ask(address, text),
        ["options"] => options(),
        ["lookup", name, service] => lookup(name, service),
        ["connect", address] => connect(address),
        ["bind", address] => bind(address),
        ["open", family, kind] => open(family, kind),
        ["pair", address] => pair(address),
        other => Err(Error::other(format!("unknown case {other:?}"))),
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// Sends every datagram back where it came from, behind a name; `end` ends it.
fn udp_echo(address: &str, name: &str) -> Result<(), Error> {
    let socket = UdpSocket::bind(address)?;
    println!("listening on port {}", socket.as_ref().get_local()?.port());
    let mut buffer = [0; 65536];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer)?;
        if &buffer[..length] == b"end" {
            return Ok(());
        }
        socket.send_to(&[name.as_bytes(), &buffer[..length]].concat(), peer)?;
    }
}

fn udp_ask(address: &str, text: &str) -> Result<(), Error> {
    let any = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any)?;
    socket.send_to(text.as_bytes(), address)?;
    let mut buffer = [0; 65536];
    let (length, peer) = socket.recv_from(&mut buffer)?;
    println!("{} from {peer}", String::from_utf8_lossy(&buffer[..length]));
    Ok(())
}

fn options() -> Result<(), Error> {
    let stream = Socket::new(AddressFamily::Inet4, SocketType::Stream)?;
    println!("type {:?}", stream.r#type()?);
    println!("type {:?}", Socket::new(AddressFamily::Inet4, SocketType::Datagram)?.r#type()?);
    println!("listener {}", stream.is_listener()?);
    println!("keepalive {}", stream.keepalive()?);
    println!("broadcast {}", stream.broadcast()?);
    println!("buffers {}", stream.recv_buffer_size()? > 0 && stream.send_buffer_size()? > 0);
    stream.set_recv_timeout(Some(Duration::from_millis(1500)))?;
    println!("receive timeout {:?}", stream.get_recv_timeout()?);
    stream.set_send_timeout(Some(Duration::from_secs(2)))?;
    println!("send timeout {:?}", stream.get_send_timeout()?);
    stream.take_error()?;
    Ok(())
}

fn lookup(name: &str, service: &str) -> Result<(), Error> {
    for address in nslookup(name, service)? {
        println!("{address}");
    }
    Ok(())
}

fn connect(address: &str) -> Result<(), Error> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"hello")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    println!("{answer}");
    Ok(())
}

fn bind(address: &str) -> Result<(), Error> {
    let listener = TcpListener::bind(address, false)?;
    println!("listening on port {}", listener.local_addr()?.port());
    Ok(())
}

fn open(family: &str, kind: &str) -> Result<(), Error> {
    let family = match family {
        "unspec" => AddressFamily::Unspec,
        "4" => AddressFamily::Inet4,
        _ => AddressFamily::Inet6,
    };
    let kind = match kind {
        "any" => SocketType::Any,
        "datagram" => SocketType::Datagram,
        _ => SocketType::Stream,
    };
    Socket::new(family, kind)?;
    println!("open");
    Ok(())
}

/// A listener and a client in one program, where every call waits.
fn pair(address: &str) -> Result<(), Error> {
    let listener = TcpListener::bind(address, false)?;
    let address: SocketAddr = address.to_socket_addrs()?.next().ok_or(Error::other("no address"))?;
    let port = listener.local_addr()?.port();
    let mut client = TcpStream::connect((address.ip(), port))?;
    let (mut server, _) = listener.accept(false)?;
    client.write_all(b"ping")?;
    let mut buffer = [0; 4];
    server.read_exact(&mut buffer)?;
    server.write_all(b"pong")?;
    server.shutdown(Shutdown::Both)?;
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    println!("{} {answer}", String::from_utf8_lossy(&buffer));
    println!("from {} to {}", client.local_addr()?.ip(), client.peer_addr()?);
    Ok(())
}

//! A TLS client for [`Raw`], by rustls: any ALPN, any certificate, from the first byte or after SSLRequest.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};

use super::{
    database::certificates,
    raw::{Raw, Stream, packet},
};

type Tls = StreamOwned<ClientConnection, TcpStream>;

impl Stream for Tls {
    fn shut(&self, how: Shutdown) -> io::Result<()> {
        self.sock.shutdown(how)
    }
    fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.sock.set_read_timeout(Some(timeout))
    }
    fn again(&self) -> io::Result<Box<dyn Stream>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// How to set TLS up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// Without SSLRequest.
    pub direct: bool,
    pub alpn: Option<&'a str>,
    /// Certificate of [`certificates`] to show, with the client's key.
    pub certificate: Option<&'a str>,
}

/// SSLRequest.
pub fn ssl_request() -> Vec<u8> {
    packet(&80_877_103_u32.to_be_bytes())
}

/// GSSENCRequest.
pub fn gss_request() -> Vec<u8> {
    packet(&80_877_104_u32.to_be_bytes())
}

/// Connects to 127.0.0.1 and runs the handshake.
pub fn open(port: u16, options: Options<'_>) -> io::Result<Raw> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut tcp = TcpStream::connect(address)?;
    tcp.set_read_timeout(Some(super::raw::PATIENCE))?;
    tcp.set_nodelay(true)?;
    if !options.direct {
        tcp.write_all(&ssl_request())?;
        let mut answer = [0];
        tcp.read_exact(&mut answer)?;
        if &answer != b"S" {
            return Err(io::Error::other(format!("SSLRequest was answered by {answer:?}")));
        }
    }
    handshake(tcp, options)
}

/// Runs the handshake on a connection.
pub fn handshake(mut tcp: TcpStream, options: Options<'_>) -> io::Result<Raw> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = ClientConnection::new(Arc::new(config(options)), name).map_err(io::Error::other)?;
    while session.is_handshaking() {
        session.complete_io(&mut tcp)?;
    }
    Ok(Raw::over(StreamOwned::new(session, tcp)))
}

fn config(options: Options<'_>) -> ClientConfig {
    let pem = |name: &str| certificates().join(name);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pem("ca.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match options.certificate {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let chain = vec![CertificateDer::from_pem_file(pem(name)).unwrap()];
            let key = PrivateKeyDer::from_pem_file(pem("client.key")).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols.extend(options.alpn.map(|name| name.as_bytes().to_vec()));
    config
}

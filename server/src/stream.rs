//! What a connection runs on: TCP, plain or under TLS.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};

/// The first byte of a connection under TLS: a record that holds a handshake (RFC 8446, section
/// 5.1). No method of HTTP begins with it.
const HANDSHAKE: u8 = 22;
/// What may wait encrypted, as little as waits in the kernel: a reader that has stopped is to be
/// noticed soon.
const ENCRYPTED_BYTES: usize = 16 * 1024;

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// As it comes.
    Plain(TcpStream),
    /// Under TLS. In a box: most of its size would lie idle in each plain connection.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Finishes the handshake of TLS, if there is a certificate and the first byte begins one.
    ///
    /// # Errors
    /// When the connection breaks, or the handshake comes to nothing.
    pub async fn accept(tcp: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let Some(tls) = tls else { return Ok(Self::Plain(tcp)) };
        let mut first = [0];
        tcp.peek(&mut first).await?;
        if first != [HANDSHAKE] {
            return Ok(Self::Plain(tcp));
        }
        // The state of a handshake is large, and of no use afterwards.
        let mut stream = Box::pin(TlsAcceptor::from(tls).accept(tcp)).await?;
        stream.get_mut().1.set_buffer_limit(Some(ENCRYPTED_BYTES));
        Ok(Self::Tls(Box::new(stream)))
    }

    /// Tells whether nobody on the way can read it.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // TLS has a last word, without which an end looks like a cut (RFC 8446, section 6.1). Where
        // there is no room for it the other side has stopped reading.
        if let Self::Tls(stream) = self {
            let _ = Pin::new(stream).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

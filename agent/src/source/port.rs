//! Opening serial ports, for sources that read lines and for those that ask devices.

use std::{fs::File, io, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

use rustix::{fs::OFlags, termios::ioctl_tiocexcl};
use serde::{Deserialize, Deserializer, de};
use tokio::{io::join, net::unix::pipe};
use tokio_serial::{ErrorKind, Parity, SerialPortBuilderExt, StopBits};
use tracing::warn;

use crate::dial::{self, Stream};

/// The first wait for a port: as long as a device takes that only restarts.
pub const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait: whoever plugs a cable in looks at the screen for this long.
pub const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What tokio-serial says where the system knows no `termios2`, through which it sets every speed:
/// in some sandboxes, and in the user mode of qemu 7.2.
const NO_TERMIOS2: &str = "Function not implemented";

/// How bytes go over a serial line; eight bits each.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// Bits a second.
    pub baud: u32,
    /// The bit that makes their number even or odd.
    pub parity: Parity,
    /// The bits behind each byte.
    pub stop_bits: StopBits,
}

/// Reads a baud rate of a configuration.
///
/// # Errors
/// When no line has it.
pub fn baud<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        baud @ 50..=4_000_000 => Ok(baud),
        _ => Err(de::Error::custom("expected a baud rate of 50 to 4000000")),
    }
}

/// Why a port cannot be opened; each is a sentence for a device's status.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none.
    #[error("Serial port not found: {0}")]
    NotFound(String),
    /// Somebody else has it.
    #[error("Serial port in use by another program: {0}")]
    InUse(String),
    /// The agent may not.
    #[error("No permission for serial port {0}; the group dialout usually has it")]
    Denied(String),
    /// The system says why.
    #[error("Serial port {0} cannot be opened: {1}")]
    Unusable(String, String),
    /// It is on the network, and nobody answers there.
    #[error(transparent)]
    Unreachable(#[from] dial::DialError),
}

/// Opens a device file, for this program alone.
///
/// # Errors
/// When it is not there, or cannot be used.
pub fn open(path: &Path, line: Line) -> Result<Box<dyn Stream>, OpenError> {
    let path = path.to_string_lossy().into_owned();
    let builder = tokio_serial::new(&path, line.baud).parity(line.parity).stop_bits(line.stop_bits);
    match builder.exclusive(true).open_native_async() {
        Ok(port) => Ok(Box::new(port)),
        Err(error) if error.description == NO_TERMIOS2 => match open_as_it_is(&path) {
            Ok(port) => Ok(port),
            Err(error) => Err(OpenError::Unusable(path, error.to_string())),
        },
        Err(error) => Err(match error.kind() {
            ErrorKind::Io(io::ErrorKind::NotFound) => OpenError::NotFound(path),
            ErrorKind::Io(io::ErrorKind::PermissionDenied) => OpenError::Denied(path),
            ErrorKind::NoDevice => OpenError::InUse(path),
            ErrorKind::InvalidInput | ErrorKind::Unknown | ErrorKind::Io(_) => {
                OpenError::Unusable(path, error.to_string())
            }
        }),
    }
}

/// Opens a port without setting its speed, where the system cannot: as `stty` left it.
fn open_as_it_is(path: &str) -> io::Result<Box<dyn Stream>> {
    let flags = (OFlags::NOCTTY | OFlags::NONBLOCK).bits().cast_signed();
    let file = File::options().read(true).write(true).custom_flags(flags).open(path)?;
    ioctl_tiocexcl(&file)?;
    warn!(port = path, "its speed cannot be set on this system; it keeps the one it has");
    let sender = pipe::Sender::from_file_unchecked(file.try_clone()?)?;
    Ok(Box::new(join(pipe::Receiver::from_file_unchecked(file)?, sender)))
}

//! A connection that is counted in, and out again at its end, however that comes.

use std::{net::IpAddr, sync::Arc, time::Instant};

use super::Gate;
use crate::limits::Refused;

/// A connection's place among those that may be open, and its user's, once he is known. Both are
/// free again when it is dropped: by whoever ends the connection, or by a panic.
#[derive(Debug)]
pub struct Entry {
    gate: Arc<Gate>,
    user: Option<Arc<str>>,
}

impl Entry {
    /// Counts a connection in.
    ///
    /// # Errors
    /// When there is no room, or too many handshakes from the address came to nothing.
    pub fn new(gate: Arc<Gate>, address: IpAddr, now: Instant) -> Result<Self, Refused> {
        gate.admission().open(address, now)?;
        Ok(Self { gate, user: None })
    }

    /// Counts its user in; once a connection.
    ///
    /// # Errors
    /// When the user has as many as he may have, or opens them too fast.
    pub fn authenticated(
        &mut self,
        address: IpAddr,
        user: &Arc<str>,
        now: Instant,
    ) -> Result<(), Refused> {
        self.gate.admission().authenticated(address, user, now)?;
        self.user = Some(Arc::clone(user));
        Ok(())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.gate.admission().close(self.user.as_deref());
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::task::JoinSet;

    use super::*;
    use crate::{
        auth::Keys,
        clock,
        limits::{Admission, Config},
        session::SessionLimits,
    };

    #[tokio::test]
    async fn a_panic_leaves_nobody_counted() {
        let folder = tempfile::tempdir().unwrap();
        let keys = Keys::load(&crate::auth::Config::default(), folder.path(), folder.path(), true);
        let config = Config { connections: 1, connections_per_user: 1, ..Config::default() };
        let gate = Gate::new(keys.unwrap(), SessionLimits::DEFAULT, Admission::new(config));
        let (gate, address) = (Arc::new(gate), Ipv4Addr::LOCALHOST.into());
        for _ in 0..2 {
            let now = clock::instant();
            let mut entry = Entry::new(Arc::clone(&gate), address, now).unwrap();
            assert_eq!(
                Entry::new(Arc::clone(&gate), address, now).err(),
                Some(Refused::Full),
                "it counts while it lives"
            );
            entry.authenticated(address, &"ops".into(), now).unwrap();
            let mut serving = JoinSet::new();
            serving.spawn(async move {
                let _entry = entry;
                panic!("as a session might");
            });
            assert!(serving.join_next().await.unwrap().unwrap_err().is_panic());
        }
    }
}

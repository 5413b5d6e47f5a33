//! Serves the start-up message of a service at a socket, since the agent does not start the service itself (AG §5.1).

use std::os::unix::fs::PermissionsExt;

use camino::{Utf8Path, Utf8PathBuf};
use nix::unistd::geteuid;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::server::{refused, remove_stale};

/// A socket that serves a message. Dropping it closes and removes the socket.
pub struct ConnectionInfo {
    path: Utf8PathBuf,
    task: JoinHandle<()>,
}

impl ConnectionInfo {
    /// Listens at `path`, and sends `message` to each connection of root or of the user of the agent.
    pub fn serve(path: Utf8PathBuf, message: Vec<u8>) -> std::io::Result<Self> {
        remove_stale(&path)?;
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let task = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => send(stream, &message).await,
                    Err(error) => refused(&error).await,
                }
            }
        });
        Ok(Self { path, task })
    }

    /// Returns the path of the socket.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }
}

impl Drop for ConnectionInfo {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The message fits into the buffer of the socket, so that a client that does not read blocks nobody.
async fn send(mut stream: UnixStream, message: &[u8]) {
    // The permissions of the socket say the same, but a directory of an unprivileged agent is readable for its group.
    let own = geteuid().as_raw();
    let is_trusted = stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own);
    if !is_trusted {
        tracing::warn!("refused to send the start-up message of a service to another user");
        return;
    }
    let _ = stream.write_all(message).await;
    let _ = stream.shutdown().await;
}

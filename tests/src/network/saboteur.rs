//! A saboteur on the line between the two security servers: it can do to the bytes whatever somebody can who holds the
//! wire and no key.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::server::reserve;

/// A direction of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the agency's security server to the register's.
    Asking,
    /// Back.
    Answering,
}

/// What is done to one TLS record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// It does not arrive; what follows does.
    Drop,
    /// One bit of it arrives changed.
    Flip,
    /// It arrives twice.
    Twice,
    /// It arrives after the one that follows.
    Swap,
    /// Half of it arrives, then the connection ends.
    Truncate,
    /// The connection ends before it (FIN).
    Close,
    /// The connection is reset before it (RST).
    Reset,
    /// It and all that follows arrives so much later.
    Delay(Duration),
    /// It and all that follows never arrives, and the connection stays.
    Silence,
}

/// The line, with its saboteur.
#[derive(Debug)]
pub struct Saboteur {
    /// Where the register's security server seems to be.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    /// Which way, after how many more records, what.
    armed: Mutex<Option<(Way, usize, Harm)>>,
    /// How often harm was done.
    done: watch::Sender<usize>,
    /// How many connections there were.
    connections: watch::Sender<usize>,
    /// Ends the connections that there are.
    cut: Notify,
    /// Nothing passes this way while it is set: asking, answering.
    held: [watch::Sender<bool>; 2],
}

impl Saboteur {
    /// Begins to listen, and passes everything on to `to` until told otherwise.
    pub(super) async fn start(to: SocketAddr) -> Self {
        let (port, address) = reserve();
        let listener = port.listen(64).unwrap();
        let shared = Arc::new(Shared {
            to,
            armed: Mutex::default(),
            done: watch::Sender::new(0),
            connections: watch::Sender::new(0),
            cut: Notify::new(),
            held: [watch::Sender::new(false), watch::Sender::new(false)],
        });
        let listening = tokio::spawn(listen(listener, Arc::clone(&shared)));
        Self { address, shared, listening }
    }

    /// Does harm once: to the record that comes this way after `after` others.
    pub fn harm(&self, way: Way, after: usize, harm: Harm) {
        *self.shared.armed.lock().unwrap() = Some((way, after, harm));
    }

    /// How often harm was done.
    pub fn harmed(&self) -> usize {
        *self.shared.done.borrow()
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        *self.shared.connections.borrow()
    }

    /// Cuts all connections that there are. Harm that was not done by then is not done any more.
    pub fn cut(&self) {
        *self.shared.armed.lock().unwrap() = None;
        self.shared.cut.notify_waiters();
    }

    /// Lets nothing pass this way, until [`Self::release`].
    pub fn hold(&self, way: Way) {
        self.shared.held[way as usize].send_replace(true);
    }

    /// Lets everything pass this way that was held.
    pub fn release(&self, way: Way) {
        self.shared.held[way as usize].send_replace(false);
    }

    /// Holds everything on the line for so long, as if a machine stood still.
    pub async fn stand_still(&self, duration: Duration) {
        let both = [Way::Asking, Way::Answering];
        both.iter().for_each(|way| self.hold(*way));
        tokio::time::sleep(duration).await;
        both.iter().for_each(|way| self.release(*way));
    }
}

impl Drop for Saboteur {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with the listener: then every connection ends.
    let mut connections = JoinSet::new();
    while let Ok((from, _)) = listener.accept().await {
        shared.connections.send_modify(|count| *count += 1);
        connections.spawn(connect(from, Arc::clone(&shared)));
    }
}

async fn connect(mut from: TcpStream, shared: Arc<Shared>) {
    let Ok(mut to) = TcpStream::connect(shared.to).await else { return };
    let ended = {
        let ((from_read, from_write), (to_read, to_write)) = (from.split(), to.split());
        tokio::select! {
            ended = relay(Way::Asking, from_read, to_write, &shared) => ended,
            ended = relay(Way::Answering, to_read, from_write, &shared) => ended,
            () = shared.cut.notified() => Ok(true),
        }
    };
    if matches!(ended, Ok(true)) {
        // Dropped with this, a socket sends RST.
        let _ = (from.set_zero_linger(), to.set_zero_linger());
    }
}

/// Passes records on. True if the connection is to be reset.
async fn relay(
    way: Way,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    shared: &Shared,
) -> std::io::Result<bool> {
    let mut held = shared.held[way as usize].subscribe();
    loop {
        let mut record = record(&mut from).await?;
        let _ = held.wait_for(|held| !held).await;
        let Some(harm) = shared.due(way) else {
            to.write_all(&record).await?;
            continue;
        };
        shared.done.send_modify(|done| *done += 1);
        let (middle, last) = (record.len() / 2, record.len() - 1);
        match harm {
            Harm::Drop => {}
            Harm::Flip => {
                record[last] ^= 1;
                to.write_all(&record).await?;
            }
            Harm::Twice => to.write_all(&record.repeat(2)).await?,
            Harm::Swap => {
                let next = self::record(&mut from).await?;
                to.write_all(&[next, record].concat()).await?;
            }
            Harm::Truncate => {
                to.write_all(&record[..middle]).await?;
                to.flush().await?;
                return Ok(false);
            }
            Harm::Close => return Ok(false),
            Harm::Reset => return Ok(true),
            Harm::Delay(time) => {
                tokio::time::sleep(time).await;
                to.write_all(&record).await?;
            }
            Harm::Silence => return std::future::pending().await,
        }
    }
}

impl Shared {
    /// What is to be done to the record that has come.
    fn due(&self, way: Way) -> Option<Harm> {
        let mut armed = self.armed.lock().unwrap();
        match &mut *armed {
            Some((at, 0, harm)) if *at == way => {
                let harm = *harm;
                *armed = None;
                Some(harm)
            }
            Some((at, after, _)) if *at == way => {
                *after -= 1;
                None
            }
            _ => None,
        }
    }
}

/// The next TLS record: type (1), version (2), length (2), and so many bytes (RFC 8446, section 5.1).
async fn record(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut record = vec![0; 5];
    from.read_exact(&mut record).await?;
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + length, 0);
    from.read_exact(&mut record[5..]).await?;
    Ok(record)
}

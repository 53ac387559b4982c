//! TLS for the verbs, where kube-scheduler finds them over the network: it shows who we are, and asks kube-scheduler
//! who it is by a client certificate, which is the one credential that kube-scheduler has for an extender.
//!
//! The files are looked at every few seconds and used as soon as they are others, so that certificates are renewed
//! without a restart. They are compared by content: a Secret that is mounted changes by a link that is swapped, which
//! leaves times and inodes to chance. Files that cannot be used leave the last good ones in place.
//!
//! No session is resumed: each connection shows its certificate again. And as connections live long, whose certificate
//! it was is checked again from time to time, by [`Tls::accepts`]: one that has expired, or whose authority is no longer
//! in the file, ends a connection that it has opened before.
//!
//! It knows nothing of HTTP, nor of sockets.

mod args;
mod clients;
mod files;
mod names;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use ops::{Fault, chain};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;

pub use self::args::TlsArgs;
pub use self::files::{Content, Files, TlsError};

use crate::metrics::Metrics;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What was made of one state of the files.
pub struct Current {
    /// What a handshake needs.
    pub(crate) server: Arc<ServerConfig>,
    clients: Arc<dyn ClientCertVerifier>,
}

/// TLS as the files say now.
pub struct Tls {
    files: Files,
    current: ArcSwap<Current>,
    seen: Mutex<Seen>,
}

/// What the last look at the files has shown.
struct Seen {
    /// What is in use.
    used: Content,
    /// What could not be used, or how the files could not be read; and whether that was told.
    refused: Option<(Result<Content, String>, bool)>,
}

/// What a look at the files has led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// They are as before.
    Same,
    /// They are others, and in use.
    Taken,
    /// They cannot be used: it is looked once more before anybody complains, since they may have been read while they
    /// were written.
    Odd,
    /// They cannot be used, and were as they are when they were looked at before. Why is said once.
    Refused(Option<String>),
}

impl Tls {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// [`TlsError`]: which of them cannot be used, and what would be right.
    pub fn load(files: Files) -> Result<Arc<Self>, TlsError> {
        let used = files.read()?;
        let current = ArcSwap::from_pointee(files.make(&used)?);
        Ok(Arc::new(Self { files, current, seen: Mutex::new(Seen { used, refused: None }) }))
    }

    /// What new connections begin with.
    pub fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }

    /// Whether a client with these certificates, its own first, may be served at this time.
    ///
    /// # Errors
    /// Why not.
    pub fn accepts(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), rustls::Error> {
        let (own, others) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        self.current.load().clients.verify_client_cert(own, others, now).map(drop)
    }

    /// Looks at the files, and uses them where they are others.
    pub fn look(&self) -> Look {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let made = match self.files.read() {
            Ok(content) if content == seen.used => {
                seen.refused = None;
                return Look::Same;
            }
            Ok(content) => {
                self.files.make(&content).map(|made| (made, content.clone())).map_err(|e| (Ok(content), e))
            }
            Err(error) => Err((Err(chain(&error)), error)),
        };
        match made {
            Ok((made, content)) => {
                self.current.store(Arc::new(made));
                *seen = Seen { used: content, refused: None };
                Look::Taken
            }
            Err((found, error)) => match &mut seen.refused {
                Some((before, told)) if *before == found => {
                    let news = !std::mem::replace(told, true);
                    Look::Refused(news.then(|| chain(&error)))
                }
                refused => {
                    *refused = Some((found, false));
                    Look::Odd
                }
            },
        }
    }

    /// Looks at the files for as long as the process lives.
    ///
    /// # Errors
    /// None; it does not end.
    pub async fn keep_fresh(self: Arc<Self>, metrics: Arc<Metrics>) -> Result<(), Fault> {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let tls = self.clone();
            // A file system that hangs holds up no request.
            let Ok(look) = tokio::task::spawn_blocking(move || tls.look()).await else { continue };
            metrics.certificates_refused(matches!(look, Look::Refused(_)));
            match look {
                Look::Taken => tracing::info!("The TLS files have changed: the new ones are used."),
                Look::Refused(Some(error)) => {
                    tracing::error!(error, "The TLS files cannot be used: those before stay in use.");
                }
                Look::Same | Look::Odd | Look::Refused(None) => {}
            }
        }
    }
}

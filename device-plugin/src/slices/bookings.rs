//! What each token stands for, written down before the kubelet hears that it was handed out.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Slices;
use crate::book::Booking;
use crate::plugin::Plugin;

impl Slices {
    /// What running containers may have, from an earlier process.
    pub fn restored(&self) -> BTreeMap<String, Booking> {
        self.store.bookings()
    }

    /// Writes down what each token stands for now, if that is not what is written.
    pub async fn keep_bookings(&self, plugin: &Arc<Plugin>) {
        let (store, plugin) = (self.store.clone(), plugin.clone());
        let now = move || {
            let book = plugin.book.borrow();
            book.bookings().map(|(token, booking)| (token.to_owned(), booking.clone())).collect()
        };
        let written = tokio::task::spawn_blocking(move || store.set_bookings(now)).await;
        if let Ok(Err(error)) = written {
            tracing::error!(%error, "What tokens stand for cannot be written down: a restart now may cut GPUs anew.");
        }
    }

    /// Writes it down again whenever it changes, until the book is gone.
    pub async fn follow_bookings(&self, plugin: &Arc<Plugin>) {
        let mut book = plugin.book.subscribe();
        while book.changed().await.is_ok() {
            self.keep_bookings(plugin).await;
        }
    }
}

//! Texts on their way to the compiler and back.
//!
//! Invariant: a text is with the compiler for as long as it takes and somebody wants it, and nothing waits
//! for it. No more texts are there than the compiler works on at a time; [`super::turns`] says which.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use futures::future::{AbortHandle, Abortable, FutureExt, LocalBoxFuture};
use futures::stream::FuturesUnordered;
use profiles::bundle::BundleId;
use profiles::digest::Digest;

use super::turns::Turns;

/// Asks the compiler about a text.
type Ask<T, A> = Box<dyn Fn(T) -> LocalBoxFuture<'static, A>>;

/// The texts that wait for the compiler, each with a `T`, and those that are with it. An `A` comes back.
pub(crate) struct Queue<T, A> {
    turns: Turns<T>,
    ask: Ask<T, A>,
    asked: FuturesUnordered<Abortable<LocalBoxFuture<'static, (Digest, A)>>>,
    /// Hangs up on the compiler, by the digests of the texts that are with it.
    hang_up: BTreeMap<Digest, AbortHandle>,
}

impl<T, A: 'static> Queue<T, A> {
    /// Nothing waits yet. The compiler works on `at_once` texts at a time.
    pub(crate) fn new(at_once: usize, ask: impl Fn(T) -> LocalBoxFuture<'static, A> + 'static) -> Self {
        Self {
            turns: Turns::new(at_once),
            ask: Box::new(ask),
            asked: FuturesUnordered::new(),
            hang_up: BTreeMap::new(),
        }
    }

    /// Whether `text` waits, or is with the compiler.
    pub(crate) fn has(&self, text: Digest) -> bool {
        self.turns.has(text)
    }

    /// Has `text`, which these bundles have, wait for its turn. On a node, one that no bundle has any more
    /// comes first: something that is loaded needs it.
    pub(crate) fn wait(&mut self, text: Digest, bundles: BTreeSet<BundleId>, content: T) {
        self.turns.wait(text, bundles, content);
    }

    /// Gives up all texts that are not `wanted`, and hangs up on the compiler where it has them.
    pub(crate) fn retain(&mut self, wanted: impl Fn(Digest) -> bool) {
        self.turns.retain(&wanted);
        self.hang_up.retain(|text, hang_up| {
            let is_wanted = wanted(*text);
            if !is_wanted {
                hang_up.abort();
                self.turns.ended(*text);
            }
            is_wanted
        });
    }

    /// The next text that is back, with what came; none if none is out. Those whose turn it is are sent.
    pub(crate) async fn next(&mut self) -> Option<(Digest, A)> {
        loop {
            while let Some((text, content)) = self.turns.next() {
                let answer = (self.ask)(content);
                let (hang_up, registration) = AbortHandle::new_pair();
                let answered = async move { (text, answer.await) }.boxed_local();
                self.asked.push(Abortable::new(answered, registration));
                self.hang_up.insert(text, hang_up);
            }
            // One that was hung up on ends as well.
            if let Ok((text, answer)) = self.asked.next().await? {
                self.hang_up.remove(&text);
                self.turns.ended(text);
                return Some((text, answer));
            }
        }
    }
}

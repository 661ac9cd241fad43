//! A kernel that does with toy blobs what Linux 6.1 and 6.12 were seen to do with real ones.
//!
//! A toy blob is `blob` on a line, and then a line for each profile: its whole name and its mode. A line that
//! begins with `#` makes it another blob.

use std::cell::RefCell;
use std::rc::Rc;

use futures::stream::StreamExt;

use super::super::kernel::{Child, Sha1};
use super::*;

/// Which digests a kernel tells.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Digests {
    None,
    Sha1,
    Sha256,
}

#[derive(Clone, Debug)]
pub(super) struct FakeKernel {
    digests: Digests,
    state: Rc<RefCell<State>>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// Profiles and children, by their whole names, and the blobs that they came from.
    profiles: BTreeMap<String, (Mode, Vec<u8>)>,
    revision: u64,
    /// The successful writes of the agent to `.replace`.
    writes: usize,
    looks: usize,
    /// The revision of the last look.
    looked_at: u64,
    features: &'static str,
}

impl FakeKernel {
    pub(super) fn new(digests: Digests) -> Self {
        Self { digests, state: Rc::default() }
    }

    pub(super) fn reboot(&self) {
        *self.state.borrow_mut() = State::default();
    }

    /// What the kernel has, to have it again.
    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    pub(super) fn restore(&self, state: State) {
        *self.state.borrow_mut() = state;
    }

    /// Loads a text behind the agent's back.
    pub(super) fn plant(&self, text: &str) {
        self.put(&compile(text)).unwrap();
    }

    pub(super) fn set_mode(&self, name: &str, mode: Mode) {
        let mut state = self.state.borrow_mut();
        state.profiles.get_mut(name).unwrap().0 = mode;
        state.revision += 1;
    }

    pub(super) fn modes(&self) -> String {
        let state = self.state.borrow();
        let modes: Vec<String> =
            state.profiles.iter().map(|(name, (mode, _))| format!("{name} {mode}")).collect();
        modes.join(", ")
    }

    pub(super) fn set_features(&self, features: &'static str) {
        self.state.borrow_mut().features = features;
    }

    /// The blob that a profile came from.
    pub(super) fn raw_of(&self, name: &str) -> Vec<u8> {
        self.state.borrow().profiles[name].1.clone()
    }

    pub(super) fn writes(&self) -> usize {
        self.state.borrow().writes
    }

    pub(super) fn looks(&self) -> usize {
        self.state.borrow().looks
    }

    fn put(&self, blob: &[u8]) -> Result<(), Errno> {
        let entries = parse(blob)?;
        let mut state = self.state.borrow_mut();
        let is_orphan = |name: &String| {
            name.rsplit_once("//").is_some_and(|(parent, _)| {
                parent.contains("//") || !entries.contains_key(parent) && !state.profiles.contains_key(parent)
            })
        };
        if entries.keys().any(is_orphan) {
            return Err(Errno::ENOENT);
        }
        for (name, mode) in entries {
            state.profiles.insert(name, (mode, blob.to_owned()));
        }
        state.revision += 1;
        Ok(())
    }

    fn raw(&self, blob: &[u8]) -> Raw {
        match self.digests {
            Digests::None => Raw::Untold,
            Digests::Sha1 => Raw::Sha1(Sha1::of(blob)),
            Digests::Sha256 => Raw::Sha256(Digest::of(blob)),
        }
    }
}

impl Kernel for FakeKernel {
    fn look(&self, names: &BTreeSet<ProfileName>) -> Result<BTreeMap<ProfileName, Present>, HostError> {
        {
            let mut state = self.state.borrow_mut();
            state.looks += 1;
            state.looked_at = state.revision;
        }
        let state = self.state.borrow();
        let look = |name: &ProfileName| {
            let (mode, blob) = state.profiles.get(name.as_str())?;
            let start = format!("{name}//");
            let children = state.profiles.iter().filter(|(child, _)| child.starts_with(&start));
            let child = |(child, (mode, blob)): (&String, &(Mode, Vec<u8>))| {
                (child.clone(), Child { mode: Some(*mode), raw: self.raw(blob) })
            };
            let children = children.map(child).collect();
            Some((name.clone(), Present { mode: Some(*mode), raw: self.raw(blob), children }))
        };
        Ok(names.iter().filter_map(look).collect())
    }

    fn replace(&self, blob: &[u8]) -> Result<(), HostError> {
        self.put(blob).map_err(|error| HostError::new("loading", Path::new(".replace"), error))?;
        self.state.borrow_mut().writes += 1;
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), HostError> {
        let mut state = self.state.borrow_mut();
        if state.profiles.remove(name).is_none() {
            return Err(HostError::new("removing", Path::new(".remove"), Errno::ENOENT));
        }
        let start = format!("{name}//");
        state.profiles.retain(|child, _| !child.starts_with(&start));
        state.revision += 1;
        Ok(())
    }

    fn features(&self) -> Result<String, HostError> {
        Ok(self.state.borrow().features.to_owned())
    }

    fn revision(&self) -> Result<u64, HostError> {
        Ok(self.state.borrow().revision)
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        // As much as the tests ask for: whether the policy changed since the last look.
        let has_changed = self.state.borrow().revision != self.state.borrow().looked_at;
        futures::stream::iter(has_changed.then_some(())).chain(futures::stream::pending()).boxed()
    }
}

/// The modes of the profiles in a toy blob.
pub(super) fn parse(blob: &[u8]) -> Result<BTreeMap<String, Mode>, Errno> {
    let text = std::str::from_utf8(blob).ok().and_then(|text| text.strip_prefix("blob\n"));
    let lines = text.ok_or(Errno::EPROTONOSUPPORT)?.lines().filter(|line| !line.starts_with('#'));
    let entry = |line: &str| {
        let (name, mode) = line.split_once(' ')?;
        Some((name.to_owned(), Mode::from_word(mode)?))
    };
    lines.map(|line| entry(line).ok_or(Errno::EPROTO)).collect()
}

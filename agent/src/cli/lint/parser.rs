//! AppArmor's parser, for texts that are judged and not loaded.
//!
//! Invariant: a text is compiled as the compiler beside an agent does it: by one process, which gives up all
//! that it does not need.

use std::collections::BTreeSet;
use std::fs;
use std::path::{self, Path};

use anyhow::{Context, Result, anyhow};
use profiles::apparmor::name::ProfileName;
use profiles::diagnostic::Diagnostic;
use tokio::runtime::Runtime;

use crate::compiler::child::{self, Cost};
use crate::compiler::verdict::verdict;
use crate::compiler::{DEADLINE, MEMORY, Toolchain};

/// The parser, and what it compiles for.
#[derive(Debug)]
pub(super) struct Parser {
    toolchain: Toolchain,
    features: String,
    runtime: Runtime,
}

impl Parser {
    /// The parser at `path`, for a kernel with the features of a file, or those that most texts are written
    /// for. None if there is no parser, which is said.
    ///
    /// # Errors
    /// There is one, and the features can't be read.
    pub(super) fn find(path: &Path, features: Option<&Path>) -> Result<Option<Self>> {
        if !path.exists() {
            eprintln!(
                "pavise: there is no {}, so AppArmor texts are not compiled, and their rules not looked at; it comes \
                 with the package apparmor (--parser chooses another)",
                path.display()
            );
            return Ok(None);
        }
        // It is run in another directory.
        let parser = path::absolute(path).with_context(|| format!("looking for {}", path.display()))?;
        let toolchain = Toolchain { parser, ..Toolchain::of_the_image() };
        let features = features.map_or_else(|| toolchain.features(), Path::to_owned);
        let features = fs::read_to_string(&features)
            .with_context(|| format!("reading {} (--features chooses another)", features.display()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("starting the asynchronous runtime")?;
        Ok(Some(Self { toolchain, features, runtime }))
    }

    /// What is found when `text`, which declares `names`, is compiled.
    ///
    /// # Errors
    /// It could not be tried, which is not the text's fault.
    pub(super) fn compile(&self, text: &str, names: &BTreeSet<ProfileName>) -> Result<Vec<Diagnostic>> {
        let cost = Cost { deadline: DEADLINE, memory: MEMORY };
        let answer = self.runtime.block_on(child::compile(&self.toolchain, cost, text, &self.features));
        Ok(verdict(text, names, answer.map_err(|reason| anyhow!(reason))?).into_findings())
    }
}

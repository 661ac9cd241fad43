//! The node's AppArmor, and the compiler beside the agent.

use profiles::platform::AppArmor;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use futures::FutureExt;
use futures::stream::BoxStream;
use tracing::{info, warn};

use crate::compiler::client::Client;
use crate::compiler::{self, Toolchain};
use crate::host::apparmor::securityfs::{Availability, SecurityFs};
use crate::host::apparmor::{ApparmorHost, PolicyHost};
use crate::sync::policies::Policies;

/// Where the container's own sysfs is.
const SYS: &str = "/sys";

/// What the user typed.
#[derive(Args, Debug)]
#[group(id = "apparmor")]
pub(crate) struct Arguments {
    /// Where the node's securityfs is mounted: AppArmor's files are there, if the node has it.
    #[arg(long, default_value = "/sys/kernel/security", value_name = "PATH")]
    securityfs: PathBuf,

    /// Where the compiler of AppArmor texts listens (see `pavise compiler`).
    #[arg(long, default_value = compiler::SOCKET, value_name = "PATH")]
    compiler: PathBuf,
}

/// The node's AppArmor, as the agent has it.
pub(super) enum Apparmor {
    /// It can be used.
    Enabled {
        /// Its policy.
        policies: Policies,
        /// Tells when that may have changed.
        changes: BoxStream<'static, ()>,
    },
    /// The node has none.
    Disabled,
    /// It may have one that the agent does not see.
    OutOfReach,
}

impl Apparmor {
    /// The same, for the rules.
    pub(super) fn kind(&self) -> AppArmor {
        match self {
            Self::Enabled { .. } => AppArmor::Enabled,
            Self::Disabled => AppArmor::Disabled,
            Self::OutOfReach => AppArmor::Unknown,
        }
    }
}

impl Arguments {
    /// Opens the policy of the node whose procfs is `proc`. If there is none to be used, that is said. The
    /// compiler is not asked yet.
    ///
    /// # Errors
    /// The node has AppArmor, and it can't be used. Or what the agent knows of it is not usable.
    pub(super) fn open(&self, state_dir: &Path, proc: &Path) -> Result<Apparmor> {
        let kernel = match SecurityFs::find(&self.securityfs, Path::new(SYS))? {
            Availability::Enabled(kernel) => kernel,
            Availability::Disabled(why) => {
                info!(why, "This node has no AppArmor: bundles of AppArmor profiles are not for it");
                return Ok(Apparmor::Disabled);
            }
            Availability::OutOfReach(why) => {
                warn!(why, "AppArmor profiles can't be served here");
                return Ok(Apparmor::OutOfReach);
            }
        };
        let toolchain = Toolchain::of_the_image().identity()?;
        let host =
            ApparmorHost::open(kernel, state_dir, proc.to_owned(), toolchain, profiles::apparmor::judge)?;
        let features: Rc<str> = host.features().into();
        let client = Rc::new(Client::new(self.compiler.clone()));
        let ask = move |text: Arc<str>| {
            let (client, features) = (client.clone(), features.clone());
            async move { Ok(client.compile(&text, &features).await?) }.boxed_local()
        };
        let changes = host.changes();
        let policies = Policies::new(Box::new(host), Box::new(ask), compiler::at_once());
        Ok(Apparmor::Enabled { policies, changes })
    }
}

//! `up`, `down` and `status`: a cluster that goes on when the command has ended.

use clap::Args;
use testbed::cluster::{self, Cluster};
use testbed::init::Lifetime;

/// Which cluster.
#[derive(Args)]
pub(crate) struct Name {
    /// The cluster's name; several can run side by side
    #[arg(default_value = "default", value_parser = testbed::layout::parse_name)]
    name: String,
}

pub(crate) fn up(Name { name }: &Name) -> anyhow::Result<()> {
    if let Ok(running) = Cluster::find(name) {
        eprintln!("The cluster {name:?} runs already.");
        print_access(&running);
        return Ok(());
    }
    print_access(&testbed::pavise::up(name, Lifetime::Detached)?);
    Ok(())
}

pub(crate) fn down(Name { name }: &Name) -> anyhow::Result<()> {
    cluster::down(name)
}

pub(crate) fn status(Name { name }: &Name) -> anyhow::Result<()> {
    let cluster = Cluster::find(name)?;
    print!(
        "{}\n{}",
        cluster.components()?,
        cluster.kubectl().run(&["get", "nodes,pods", "--all-namespaces", "-o", "wide"])?
    );
    print_access(&cluster);
    Ok(())
}

/// What a shell needs to use the cluster, ready to be pasted.
fn print_access(cluster: &Cluster) {
    println!("\nexport KUBECONFIG={}", cluster.layout().admin_kubeconfig().display());
    println!(
        "export PATH=\"{}:$PATH\"   # this cluster's own kubectl",
        cluster.tools().directory().display()
    );
}

//! `up`, `down` and `status`: a cluster that goes on when the command has ended.

use std::path::Path;

use anyhow::bail;
use clap::Args;
use testbed::cluster::{self, Cluster};
use testbed::node::Kind;
use testbed::{GUEST_NODE, HOST_NODE, images, pavise};

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
        pavise::update(&running)?;
        print_access(&running);
        return Ok(());
    }
    let cluster = pavise::up(name, &Kind::ALL)?;
    print_access(&cluster);
    cluster.detach()
}

pub(crate) fn down(Name { name }: &Name) -> anyhow::Result<()> {
    cluster::down(name)?;
    eprintln!("The cluster {name:?} has ended.");
    Ok(())
}

pub(crate) fn status(Name { name }: &Name) -> anyhow::Result<()> {
    let cluster = Cluster::find(name)?;
    println!("{}", cluster.components()?);
    let ended = cluster.ended()?;
    if !ended.is_empty() {
        bail!("{ended}");
    }
    print!("{}", cluster.kubectl().run(&["get", "nodes,pods", "--all-namespaces", "-o", "wide"])?);
    print_access(&cluster);
    Ok(())
}

/// What a shell needs to use the cluster, ready to be pasted, and what to do first.
fn print_access(cluster: &Cluster) {
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    println!("\nexport KUBECONFIG={}", quoted(&cluster.layout().admin_kubeconfig()));
    println!("alias kubectl={}", quoted(&cluster.tools().program("kubectl")));
    println!(
        "\n{HOST_NODE} runs on this machine's kernel, without AppArmor; {GUEST_NODE} is a virtual machine, with it."
    );
    println!("They pull no images: they have {} and {}. Try:", images::HTTP_ECHO, images::BUSYBOX);
    println!("  kubectl apply -k manifests/testbed/seccomp-tutorial");
}

//! The project's own commands.
fn main() {
    testbed::init::run_if_asked();
    let a: Vec<String> = std::env::args().collect();
    let r = match a[1].as_str() {
        "up" => testbed::cluster::Cluster::up("default", testbed::init::Lifetime::Detached)
            .map(|c| println!("export KUBECONFIG={}", c.layout().admin_kubeconfig().display())),
        "down" => testbed::cluster::down("default"),
        "image" => testbed::images::pavise_image().map(|p| println!("{}", p.display())),
        _ => Ok(()),
    };
    if let Err(e) = r {
        eprintln!("{e:#}");
        std::process::exit(1)
    }
}

//! `bench apparmor`: what Pavise takes to compile and load AppArmor profiles, and to load them again from its
//! disk, beside a loop of `apparmor_parser --replace`, all in the guest. Its processors are emulated, so what
//! counts are the ratios. Each time is told by the guest's own clock; a look at the kernel takes some
//! milliseconds there.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;
use testbed::cluster::Cluster;
use testbed::guest::Guest;
use testbed::kubectl::wait_for;
use testbed::node::Kind;
use testbed::pavise::PROFILES;
use testbed::{GUEST_NODE, pavise, progress};

use super::report::{Amount, Report};

/// How many profiles are loaded, a text each.
const COUNT: usize = 100;
/// How often each is measured.
const ROUNDS: usize = 3;
/// Emulated processors compile a hundred profiles in a minute.
const PATIENCE: Duration = Duration::from_mins(5);
/// What Pavise may take to load profiles from its disk, of what it takes to compile and load them.
const GOAL: f64 = 0.05;

/// Prints the time since the guest was started.
const UPTIME: &str = "cut -d' ' -f1 /proc/uptime";
const POLICY: &str = "/sys/kernel/security/apparmor";

pub(super) fn run() -> anyhow::Result<()> {
    let cluster = pavise::up("bench", &Kind::ALL)?;
    let measured = measure(&cluster);
    if measured.is_err() {
        eprintln!("{}", pavise::state(&cluster)?);
    }
    progress::step("Ending the cluster", || cluster.down())?;
    println!("\n{}\n", measured?);
    Ok(())
}

fn measure(cluster: &Cluster) -> anyhow::Result<Report> {
    let bench = Bench { cluster, guest: cluster.guest()? };
    let (mut parser, mut compiled, mut cached) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        parser.push(progress::step(&format!("{COUNT} times apparmor_parser --replace"), || {
            bench.parser(round)
        })?);
        compiled.push(progress::step("A bundle of as many texts", || bench.bundle(round))?);
        cached.push(progress::step("The same from the agent's disk", || bench.again())?);
        bench.clean()?;
    }
    let (parser, compiled, cached) = (median(parser), median(compiled), median(cached));
    let remark = format!("median of {ROUNDS}");
    let mut report = Report::new();
    report.tell(&format!("A loop of {COUNT} × apparmor_parser --replace"), Amount::Time(parser), &remark);
    report.tell("ConfigMap created → all compiled and loaded", Amount::Time(compiled), &remark);
    report.tell("… compared with the loop", ratio(compiled, parser), "");
    report.tell("Loaded again from the agent's disk", Amount::Time(cached), &remark);
    report.judge("… compared with compiling", Amount::Ratio(GOAL), ratio(cached, compiled), "");
    report.tell("… compared with the loop", ratio(cached, parser), "");
    Ok(report)
}

fn ratio(of: Duration, to: Duration) -> Amount {
    Amount::Ratio(of.as_secs_f64() / to.as_secs_f64())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn seconds(text: &str) -> anyhow::Result<Duration> {
    let seconds: f64 = text.trim().parse().with_context(|| format!("reading the time {text:?}"))?;
    Ok(Duration::from_secs_f64(seconds))
}

struct Bench<'a> {
    cluster: &'a Cluster,
    guest: Guest,
}

/// A profile as in the Kubernetes tutorial. No two rounds have the same text.
fn text(index: usize, round: &str) -> String {
    format!(
        "#include <tunables/global>\nprofile bench-{index} flags=(attach_disconnected) {{\n  \
         #include <abstractions/base>\n  file,\n  deny /** w,\n  deny /round/{round} r,\n}}\n"
    )
}

impl Bench<'_> {
    fn script(&self, script: &str) -> anyhow::Result<String> {
        self.guest.run(&["sh", "-c", script])
    }

    /// The time since the guest was started.
    fn clock(&self) -> anyhow::Result<Duration> {
        seconds(&self.script(UPTIME)?)
    }

    /// Waits until the kernel has all profiles, and says when that was.
    fn all_loaded(&self) -> anyhow::Result<Duration> {
        // A command may take two minutes, and the shell looks as often as it can.
        let script = format!(
            "i=0; while [ \"$(grep -c '^bench-' {POLICY}/profiles)\" -ne {COUNT} ]; do \
             i=$((i+1)); [ $i -gt 1000 ] && exit 3; sleep 0.02; done; {UPTIME}"
        );
        let text = wait_for("all profiles to be loaded", PATIENCE, || Ok(self.script(&script).ok()))?;
        seconds(&text)
    }

    /// What a loop of the parser takes. Nothing stays of it.
    fn parser(&self, round: usize) -> anyhow::Result<Duration> {
        let directory = "/run/bench-apparmor";
        self.script(&format!("mkdir -p {directory}"))?;
        for index in 0..COUNT {
            let file = format!("{directory}/{index}");
            self.guest.run_with_input(&["tee", &file], &text(index, &format!("parser-{round}")))?;
        }
        let start = self.clock()?;
        // By tens, as a command may take two minutes.
        for tens in 0..COUNT / 10 {
            self.script(&format!(
                "for i in $(seq {} {}); do apparmor_parser --replace --skip-cache {directory}/$i || exit 1; done",
                tens * 10,
                tens * 10 + 9
            ))?;
        }
        let time = self.clock()?.saturating_sub(start);
        self.wipe()?;
        self.script(&format!("rm -r {directory}"))?;
        Ok(time)
    }

    /// What it takes from the ConfigMap to the kernel.
    fn bundle(&self, round: usize) -> anyhow::Result<Duration> {
        let data: serde_json::Map<_, _> = (0..COUNT)
            .map(|index| (format!("p{index}"), json!(text(index, &format!("bundle-{round}")))))
            .collect();
        let bundle = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "bench", "namespace": PROFILES, "labels": {"pavise.dev/profiles": "apparmor"}},
            "data": data,
        });
        let start = self.clock()?;
        self.cluster.kubectl().apply(&bundle.to_string())?;
        Ok(self.all_loaded()?.saturating_sub(start))
    }

    /// What it takes the agent to load what the kernel has lost, as after a reboot. It sleeps while the
    /// profiles are taken away, and the time begins when it wakes up.
    fn again(&self) -> anyhow::Result<Duration> {
        let find = "for p in /proc/[0-9]*; do case \"$(tr '\\0' ' ' < $p/cmdline 2>/dev/null)\" in \
                    *pavise\\ agent*) echo ${p#/proc/};; esac; done";
        let agent = self.script(find)?;
        let agent = agent.trim();
        self.script(&format!("kill -STOP {agent}"))?;
        self.wipe()?;
        let start = seconds(&self.script(&format!("{UPTIME}; kill -CONT {agent}"))?)?;
        Ok(self.all_loaded()?.saturating_sub(start))
    }

    fn wipe(&self) -> anyhow::Result<()> {
        self.script(&format!(
            "for n in $(grep -o '^bench-[0-9]*' {POLICY}/profiles); do printf $n > {POLICY}/.remove; done"
        ))?;
        let left = self.script(&format!("grep -c '^bench-' {POLICY}/profiles || true"))?;
        ensure!(left.trim() == "0", "{} profiles are left", left.trim());
        Ok(())
    }

    fn clean(&self) -> anyhow::Result<()> {
        self.cluster.kubectl().run(&["delete", "configmap", "bench", "-n", PROFILES])?;
        wait_for(&format!("the agent on {GUEST_NODE} to remove all profiles"), PATIENCE, || {
            let left = self.script(&format!("grep -c '^bench-' {POLICY}/profiles || true"))?;
            Ok((left.trim() == "0").then_some(()))
        })
    }
}

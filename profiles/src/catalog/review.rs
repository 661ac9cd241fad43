//! What there is to say about one ConfigMap, for all nodes at once.
//!
//! Invariants: what is said follows from the ConfigMap, the platforms and what the compiler found alone. So
//! two catalogs say the same, under the same names, and one that is restarted says nothing twice. Of an
//! AppArmor text that is not compiled, only what refuses it is said: that it is served, with or without
//! flaws, nobody knows.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::apparmor;
use crate::bundle::{Bundle, BundleId, Kind, Profile, Source};
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::digest::Digest;
use crate::name::ProfileKey;
use crate::platform::Platform;
use crate::saying::Review;
use crate::statement::{LONGEST_NOTE, Reason, Statement, Subject, cut};
use crate::verdicts::Verdicts;

/// What is kept free at the end of a note to say that there is more.
const MORE: usize = 64;
/// The longest beginning of a note: a key may have 253 characters, and platforms may be many.
const LONGEST_HEAD: usize = 400;
/// How many keys of one bundle are spoken of by themselves. What is listed below a ConfigMap is read by a
/// person.
const MOST_STATEMENTS: usize = 20;

/// What compiling texts found, by the texts. Nothing, if all is right.
pub(super) type Compiled = BTreeMap<Digest, Vec<Diagnostic>>;

/// A bundle of AppArmor texts, judged by the texts alone, which is the same on all platforms.
#[derive(Clone, Debug)]
pub struct Texts {
    uid: String,
    platform: Platform,
    pub(super) bundle: Bundle,
}

impl Texts {
    /// Judges `source`. None if it is no bundle of AppArmor texts, or there are no platforms.
    pub(super) fn of(source: &Source, platforms: &BTreeSet<Platform>) -> Option<Self> {
        let platform = *platforms.first()?;
        let is_apparmor = Kind::from_word(&source.kind) == Some(Kind::AppArmor);
        is_apparmor.then(|| {
            let bundle = Bundle::of(source.clone(), &mut Verdicts::new(platform));
            Self { uid: source.uid.clone(), platform, bundle }
        })
    }
}

impl Review {
    /// What there is to say of `texts`, of which the compiler found what is in `compiled`.
    pub(super) fn of_texts(texts: &Texts, compiled: &Compiled) -> Self {
        let Texts { uid, platform, bundle } = texts;
        let mut bundle = bundle.clone();
        let mut is_complete = true;
        for profile in bundle.profiles.values_mut() {
            let Profile::Accepted(document, warnings) = profile else { continue };
            let Some(found) = compiled.get(&document.digest()) else {
                is_complete = false;
                *warnings = [].into();
                continue;
            };
            let all: Arc<[_]> = warnings.iter().chain(apparmor::beside(warnings, found)).cloned().collect();
            let is_refused = all.iter().any(|finding| finding.severity() == Severity::Error);
            *profile =
                if is_refused { Profile::Refused(all) } else { Profile::Accepted(document.clone(), all) };
        }
        let platforms = [*platform].into();
        let mut findings = Findings::new(&platforms);
        findings.add(*platform, &bundle);
        let statements = findings.statements(&bundle.id, uid);
        Self { statements, subject: Subject::from(&bundle.id), uid: uid.clone(), is_complete }
    }

    /// Judges `source` as the agents on nodes of all these platforms do. With the outline of the bundle on the
    /// first of them, if there is one.
    pub(super) fn of(source: &Source, platforms: &BTreeSet<Platform>) -> (Self, Option<Bundle>) {
        let Source { id, uid, .. } = source;
        let mut findings = Findings::new(platforms);
        let mut outline = None;
        for platform in platforms {
            let bundle = Bundle::of(source.clone(), &mut Verdicts::new(*platform));
            findings.add(*platform, &bundle);
            outline.get_or_insert_with(|| bundle.outline());
        }
        let statements = findings.statements(id, uid);
        let review = Self { statements, subject: Subject::from(id), uid: uid.clone(), is_complete: true };
        (review, outline)
    }
}

/// Findings, each with the platforms for which it holds, in the order in which they are said: errors first.
type Found = BTreeMap<(Reverse<Severity>, Option<(usize, usize)>, String), BTreeSet<Platform>>;

/// All that was found in one ConfigMap.
struct Findings<'a> {
    platforms: &'a BTreeSet<Platform>,
    bundle: Found,
    /// By the field that they are about.
    keys: BTreeMap<(ProfileKey, String), OfKey>,
}

#[derive(Default)]
struct OfKey {
    refused: BTreeSet<Platform>,
    found: Found,
}

impl<'a> Findings<'a> {
    fn new(platforms: &'a BTreeSet<Platform>) -> Self {
        Self { platforms, bundle: Found::new(), keys: BTreeMap::new() }
    }

    /// Adds what is wrong with `bundle` on one platform.
    fn add(&mut self, platform: Platform, bundle: &Bundle) {
        let only = BTreeSet::from([platform]);
        for diagnostic in &bundle.diagnostics {
            self.of_the_bundle(&only, diagnostic);
        }
        for (key, profile) in &bundle.profiles {
            let diagnostics = profile.diagnostics();
            if diagnostics.is_empty() {
                continue;
            }
            let is_binary = diagnostics.iter().any(|diagnostic| diagnostic.code == Code::BinaryData);
            let field = if is_binary { "binaryData" } else { "data" };
            let of_key = self.keys.entry((key.clone(), format!("{field}[{key}]"))).or_default();
            if matches!(profile, Profile::Refused(_)) {
                of_key.refused.insert(platform);
            }
            for diagnostic in diagnostics {
                note_down(&mut of_key.found, diagnostic, &only);
            }
        }
    }

    fn of_the_bundle(&mut self, platforms: &BTreeSet<Platform>, diagnostic: &Diagnostic) {
        note_down(&mut self.bundle, diagnostic, platforms);
    }

    fn statements(&self, id: &BundleId, uid: &str) -> Vec<Statement> {
        let subject = Subject::from(id);
        let statement = |field, reason, note| Statement {
            subject: subject.clone(),
            uid: uid.to_owned(),
            field,
            reason,
            note,
        };
        let mut statements = Vec::new();
        if !self.bundle.is_empty() {
            let head = format!("{} has a problem:", id.name);
            statements.push(statement(None, Reason::BundleProblem, self.note(&head, &self.bundle)));
        }
        for ((key, field), of_key) in &self.keys {
            let (reason, head) = if of_key.refused.is_empty() {
                (Reason::ProfileFlaw, format!("{key} is served, but:"))
            } else {
                (Reason::ProfileRefused, format!("{key} is refused{}:", self.only(" ", &of_key.refused, "")))
            };
            statements.push(statement(Some(field.clone()), reason, self.note(&head, &of_key.found)));
        }
        statements.sort_by_key(|statement| statement.reason);
        if statements.len() > MOST_STATEMENTS {
            let rest = statements.split_off(MOST_STATEMENTS);
            let refused = rest.iter().filter(|one| one.reason == Reason::ProfileRefused).count();
            let note = format!(
                "{} more profiles have problems, {refused} of them are refused: `pavise lint` shows all",
                rest.len()
            );
            statements.push(statement(None, Reason::MoreProblems, note));
        }
        statements
    }

    /// `head`, and as many findings as a note can hold.
    fn note(&self, head: &str, found: &Found) -> String {
        let mut note = cut(head, LONGEST_HEAD);
        for (index, ((_, _, text), platforms)) in found.iter().enumerate() {
            let finding = format!(" {}{text}.", self.only("", platforms, ": "));
            let is_last = index + 1 == found.len();
            let room = (LONGEST_NOTE - if is_last { 0 } else { MORE }).saturating_sub(note.len());
            if finding.len() > room && index > 0 {
                let rest = found.len() - index;
                return format!("{note} {rest} more: `pavise lint` shows all.");
            }
            note += &cut(&finding, room);
        }
        note
    }

    /// `on <platforms>` between `before` and `after`, if these are not all platforms.
    fn only(&self, before: &str, some: &BTreeSet<Platform>, after: &str) -> String {
        if some == self.platforms {
            return String::new();
        }
        let mut names = BTreeSet::new();
        for platform in some {
            let mut alike = self.platforms.iter().filter(|one| one.architecture == platform.architecture);
            names.insert(if alike.all(|one| some.contains(one)) {
                platform.architecture.to_string()
            } else {
                platform.to_string()
            });
        }
        format!("{before}on {}{after}", names.into_iter().collect::<Vec<_>>().join(" and "))
    }
}

fn note_down(found: &mut Found, diagnostic: &Diagnostic, platforms: &BTreeSet<Platform>) {
    let key = (Reverse(diagnostic.severity()), diagnostic.place.position, diagnostic.to_string());
    found.entry(key).or_default().extend(platforms);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp;

    const GOOD: &str = r#"{"defaultAction":"SCMP_ACT_LOG"}"#;
    const BAD: &str = "{\n\"defaultAction\":\"SCMP_ACT_LGO\"}";
    const FLAWED: &str = r#"{"defaultAction":"SCMP_ACT_LOG","x":1}"#;

    fn platforms(texts: &[&str]) -> BTreeSet<Platform> {
        texts.iter().map(|text| Platform::example(text)).collect()
    }

    fn source(kind: &str, data: &[(&str, &str)], binary: &[&str]) -> Source {
        let binary_keys = binary.iter().map(|key| (*key).to_owned()).collect();
        Source { kind: kind.to_owned(), binary_keys, ..Source::example("web", data) }
    }

    fn judge(kind: &str, data: &[(&str, &str)], binary: &[&str]) -> Vec<Statement> {
        Review::of(&source(kind, data, binary), &platforms(&["amd64 6.12", "arm64 6.12"])).0.statements
    }

    /// Claims reason, field and the beginning of the note of each statement.
    fn check(statements: &[Statement], expected: &[(&str, &str, &str)]) {
        let said: Vec<_> = statements
            .iter()
            .map(|one| (one.reason.as_str(), one.field.as_deref().unwrap_or_default(), one.note.as_str()))
            .collect();
        assert_eq!(said.len(), expected.len(), "{said:#?}");
        for ((reason, field, note), expected) in said.iter().zip(expected) {
            assert_eq!((*reason, *field), (expected.0, expected.1), "{note}");
            assert!(note.starts_with(expected.2), "{note}");
        }
    }

    #[test]
    fn each_key_with_a_problem_is_spoken_of_once_and_refusals_come_first() {
        check(&judge("seccomp", &[("a.json", GOOD)], &[]), &[]);
        check(
            &judge("seccomp", &[("a.json", FLAWED), ("b.json", GOOD), ("c.json", BAD)], &["d.json"]),
            &[
                (
                    "ProfileRefused",
                    "data[c.json]",
                    "c.json is refused: error[unknown-action] line 2, column 17, $.defaultAction: \"SCMP_ACT_LGO\" is",
                ),
                ("ProfileRefused", "binaryData[d.json]", "d.json is refused: error[binary-data] "),
                ("ProfileFlaw", "data[a.json]", "a.json is served, but: warning[unknown-field] line 1, "),
            ],
        );
        check(
            &judge("seccomp", &[], &[]),
            &[("BundleProblem", "", "web has a problem: warning[empty-bundle]: ")],
        );
    }

    #[test]
    fn errors_come_before_warnings() {
        let text = r#"{"x":1,"defaultAction":"SCMP_ACT_LGO"}"#;
        let said = judge("seccomp", &[("a.json", text)], &[]);
        let at = |word| said[0].note.find(word).unwrap();
        assert!(at("error[unknown-action]") < at(". warning[unknown-field]"), "{}", said[0].note);
    }

    #[test]
    fn a_wrong_kind_is_said_with_what_was_probably_meant() {
        let problem = "web has a problem: error[unknown-kind] $.metadata.labels[\"pavise.dev/profiles\"]: ";
        for (kind, expected) in [
            (
                "secomp",
                "\"secomp\" is no kind of profiles, so nothing of the bundle is served; did you mean \"seccomp\"?; ",
            ),
            ("selinux", "\"selinux\" is no kind of profiles, so nothing of the bundle is served; label"),
            ("", "\"\" is no kind of profiles, so nothing of the bundle is served; label"),
            (
                "aparmor",
                "\"aparmor\" is no kind of profiles, so nothing of the bundle is served; did you mean \"apparmor\"?; ",
            ),
        ] {
            let said = judge(kind, &[("a.json", BAD)], &[]);
            check(&said, &[("BundleProblem", "", &format!("{problem}{expected}"))]);
        }
    }

    #[test]
    fn a_note_fits_and_says_how_much_it_leaves_out() {
        let rule = |n: usize| format!("{{\"names\":[\"call{n}\"],\"action\":\"SCMP_ACT_ÄÖÜ{n}\"}}");
        for rules in [1, 2, 5, 90] {
            let rules: Vec<String> = (0..rules).map(rule).collect();
            let text = format!("{{\"defaultAction\":\"SCMP_ACT_LOG\",\"syscalls\":[{}]}}", rules.join(",\n"));
            let count = seccomp::check(&text, Platform::EXAMPLE).findings.len();
            for key in ["a".to_owned(), "k".repeat(253)] {
                let note = judge("seccomp", &[(&key, &text)], &[]).swap_remove(0).note;
                assert!(note.len() <= LONGEST_NOTE, "{} bytes: {note}", note.len());
                let said = note.matches("error[").count() + note.matches("warning[").count();
                let rest = format!(" {} more: `pavise lint` shows all.", count - said);
                assert!(said > 0 && (said == count || note.ends_with(&rest)), "{note}");
            }
        }
    }

    #[test]
    fn a_thousand_bad_keys_are_twenty_one_statements() {
        let keys: Vec<String> = (0..1_000).map(|n| format!("{n:04}.json")).collect();
        let data: Vec<(&str, &str)> = keys
            .iter()
            .enumerate()
            .map(|(n, key)| (key.as_str(), if n % 100 == 0 { FLAWED } else { BAD }))
            .collect();
        let said = judge("seccomp", &data, &[]);
        assert_eq!(said.len(), 21);
        assert_eq!(said[19].reason, Reason::ProfileRefused);
        check(
            &said[20..],
            &[("MoreProblems", "", "980 more profiles have problems, 970 of them are refused: ")],
        );
    }

    #[test]
    fn what_holds_for_some_platforms_only_is_said_with_them() {
        let all = platforms(&["amd64 5.10", "amd64 6.12", "arm64 6.12"]);
        let judged = |text: &str| {
            let source = source("seccomp", &[("a.json", text)], &[]);
            Bundle::of(source, &mut Verdicts::new(Platform::EXAMPLE))
        };
        for (bad, head, finding) in [
            (&["amd64 5.10", "amd64 6.12", "arm64 6.12"][..], "a.json is refused: ", " error["),
            (&["arm64 6.12"], "a.json is refused on arm64: ", " on arm64: error["),
            (&["amd64 5.10", "amd64 6.12"], "a.json is refused on amd64: ", " on amd64: error["),
            (
                &["amd64 5.10", "arm64 6.12"],
                "a.json is refused on amd64 with kernel 5.10 and arm64: ",
                " on amd64 with kernel 5.10 and arm64: error[",
            ),
        ] {
            let mut findings = Findings::new(&all);
            for platform in &all {
                let is_bad = platforms(bad).contains(platform);
                findings.add(*platform, &judged(if is_bad { BAD } else { FLAWED }));
            }
            let said = findings.statements(&BundleId::new("ns", "web").unwrap(), "u");
            check(&said, &[("ProfileRefused", "data[a.json]", head)]);
            assert!(said[0].note.contains(finding), "{}", said[0].note);
        }
    }
}

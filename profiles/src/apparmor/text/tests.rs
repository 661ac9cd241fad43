//! Claims about what a text declares, one text each.

use super::*;

mod fuzz;
mod texts;

/// Claims the names that `text` declares, and the findings about it: code, line and column of each.
fn check(text: &str, names: &[&str], findings: &[&str]) {
    let scanned = scan(text);
    let found: Vec<String> = scanned
        .findings
        .iter()
        .map(|finding| match finding.place.position {
            Some((line, column)) => format!("{} {line}:{column}", finding.code),
            None => finding.code.to_string(),
        })
        .collect();
    let declared: Vec<&str> = scanned.names.iter().map(ProfileName::as_str).collect();
    assert_eq!((declared.as_slice(), found), (names, strings(findings)), "{text:?}");
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// All profiles, children and hats, by their whole names, as `apparmor_parser -N` has them.
fn declared(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for profile in &Outline::new(text).profiles {
        let own = profile.name.text;
        names.push(profile.parent.map_or(own.to_owned(), |parent| format!("{}//{own}", names[parent])));
    }
    names
}

#[test]
fn a_sound_text_has_no_findings() {
    check(
        "#include <tunables/global>\n\nprofile k8s-apparmor-example-deny-write flags=(attach_disconnected) {\n  \
         #include <abstractions/base>\n\n  file,\n\n  # Deny all file writes.\n  deny /** w,\n}\n",
        &["k8s-apparmor-example-deny-write"],
        &[],
    );
    check(
        "abi <abi/3.0>,\ninclude if exists <tunables/x>\nprofile a/b.c_d+e-f { audit file, }\nprofile b { /** mr, }",
        &["a/b.c_d+e-f", "b"],
        &["no-base-abstraction 3:9"],
    );
}

#[test]
fn every_way_to_declare_a_profile_is_read() {
    for (text, expected) in [
        ("profile a { }", &["a"][..]),
        ("profile a { }\r\nprofile b\t{\r\n}\r\n", &["a", "b"]),
        ("profile \"a b\" { }", &["a b"]),
        ("\"/a b\" { }\n/c { }", &["/a b", "/c"]),
        ("profile\"a\"{ }", &["a"]),
        ("profile/x { }", &["/x"]),
        ("profile a{ }", &[]),
        ("profile a{ { }", &["a{"]),
        ("/bin/{a,b}{c,} { }", &["/bin/{a,b}{c,}"]),
        (
            "@{exec} = /x\nprofile a @{exec} { }\nprofile @{exec}/y { }\n@{exec}/z { }",
            &["a", "@{exec}/y", "@{exec}/z"],
        ),
        (":ns:a { }\nprofile :ns://b { }", &[":ns:a", ":ns://b"]),
        (
            "hat h { }\n^i { }\nprofile a { ^j { } hat k { } profile l { ^m { } } }",
            &["h", "i", "a", "a//j", "a//k", "a//l", "a//l//m"],
        ),
        (
            "profile a { if $x { ^h { } } else if not defined @{y} { ^i { } } else { } }\nprofile b { }",
            &["a", "a//h", "a//i", "b"],
        ),
        ("profile a { owner { /x r, } }\nprofile b { }", &["a", "b"]),
        ("profile a /x xattrs=(a=b c=(d,e)) flags=(complain) { }\nprofile b (audit) { }", &["a", "b"]),
        ("# profile a { }\n#profile b { }\nprofile c { # }\n}\nprofile d { }", &["c", "d"]),
        ("@{x}=a # profile b { }\n@{x} += \\\n profile c\nprofile d { }", &["d"]),
        ("profile a { /x{ r, /y} w, \"/z}\" r, /\\} r, }\nprofile b { }", &["a", "b"]),
        (
            "profile a { mount options=(ro, bind) /{a,b} -> /}, dbus peer=(name={a,b}), signal set=(hup), }\nprofile b { }",
            &["a", "b"],
        ),
        (
            "profile a { change_profile -> profile, network inet, set rlimit nofile <= 3, unix (send) peer=(label=x), }\nprofile b { }",
            &["a", "b"],
        ),
        (
            "profile a { /x px -> profile, /y cx -> b, link /a -> /b, }\nalias /x -> /y,\nprofile b { }",
            &["a", "b"],
        ),
        ("profile profile { }\nprofile hat { profile hat { } }", &["profile", "hat", "hat//hat"]),
        ("profile a flags = ( complain ) { }\nprofile b flags=(audit\n) {\n}", &["a", "b"]),
        ("include <abstractions/x> profile a { }", &["a"]),
        ("\u{feff}profile a { }\0profile b { }", &["a", "b"]),
        ("profile a { } }\nprofile b { }", &["a", "b"]),
        ("profile a { {\nprofile b { }", &["a", "a//b"]),
    ] {
        assert_eq!(declared(text), strings(expected), "{text:?}");
    }
}

#[test]
fn includes_of_every_way_to_write_them_are_judged() {
    for (include, is_allowed) in [
        ("#include <abstractions/nameservice>", true),
        ("include <abstractions/dbus-session-strict>", true),
        ("include <abstractions/apparmor_api/examine>", true),
        ("include if exists <abstractions/base.d>", true),
        ("#include if exists <local/web>", true),
        ("include if exists <local/web>", true),
        ("include\t<tunables/home.d>", true),
        ("include <local/web>", false),
        ("include <local/web> # a comment", false),
        ("include <abstractions>", false),
        ("include <abstractions/>", false),
        ("include <abstractions//base>", false),
        ("include <abstractions/../local/x>", false),
        ("include <abstractions/./base>", false),
        ("include <abstractions/.hidden>", false),
        ("include <abi/3.0>", false),
        ("include <\"abstractions/base\">", false),
        ("include </etc/passwd>", false),
        ("include <ours/x>", false),
        ("include \"abstractions/base\"", false),
        ("include \"/etc/passwd\"", false),
        ("include /etc/passwd", false),
        ("include abstractions/base", false),
        ("include if exists \"/etc/passwd\"", false),
        ("#include/etc/passwd", false),
        ("#include \n/proc/self/mem", false),
        ("include <abstractions/a b>", false),
        ("include <abstractions/\u{e4}>", false),
    ] {
        let found = scan(&format!("{include}\nprofile a {{ file, }}\n")).findings;
        let codes: Vec<Code> = found.iter().map(|finding| finding.code).collect();
        let expected: &[Code] = if is_allowed { &[] } else { &[Code::ForeignInclude] };
        assert_eq!(codes, expected, "{include:?}");
    }
    for (abi, is_allowed) in [
        ("<abi/3.0>", true),
        ("<kernel>", false),
        ("\"/proc/self/mem\"", false),
        ("<abstractions/base>", false),
        ("x", false),
    ] {
        let found = scan(&format!("abi {abi},\nprofile a {{ file, }}\n")).findings;
        assert_eq!(found.is_empty(), is_allowed, "{abi:?}: {found:?}");
    }
}

#[test]
fn a_text_without_profiles_is_refused_unless_the_parser_says_why() {
    for text in ["", "\n", " # nothing\n", "@{x}=a", "include <tunables/global>\n@{x}=a b\nabi <abi/3.0>,\n"]
    {
        check(text, &[], &["no-profile"]);
    }
    for text in [
        "}",
        "profile",
        "profile a",
        "{",
        "web:\n  file",
        "{\"defaultAction\": \"SCMP_ACT_LOG\"}",
        "# a comment",
    ] {
        check(text, &[], &[]);
    }
}

#[test]
fn where_something_is_missing_the_rest_is_read_nevertheless() {
    check("abi <abi/3.0>\nprofile a { file, }", &["a"], &[]);
    check("include <abstractions/base\nprofile a { file, }", &["a"], &[]);
    check("profile a { \"/x r,\n file,\n}\nprofile b /x { file, }", &["a", "b"], &["attachment 4:11"]);
}

#[test]
fn names_in_quotes_and_escapes_are_not_taken_for_others() {
    check("profile \"web\" { file, }", &["web"], &[]);
    check("profile d\\157cker-default { file, }", &[], &["invalid-profile-name 1:9"]);
    check("profile \"docker-default\" { file, }", &["docker-default"], &["reserved-profile 1:9"]);
    check("@{x}=docker-default\nprofile @{x} { file, }", &[], &["invalid-profile-name 2:9"]);
    check(
        "profile &a { file, }\nprofile a//b { file, }",
        &[],
        &["invalid-profile-name 1:9", "invalid-profile-name 2:9"],
    );
    check("profile unconfined { file, }", &[], &["invalid-profile-name 1:9"]);
}

#[test]
fn children_are_judged_as_what_they_are() {
    check("profile a { file, profile /bin/x { } ^/hat { } profile c /bin/y { } }", &["a"], &[]);
    check("profile a { file, ^h flags=(unconfined) { } }", &["a"], &["unconfined-profile 1:29"]);
    check(
        "profile a { file, ^h flags=(complain) { deny /x r, } }",
        &["a"],
        &["complain-mode 1:29", "deny-in-complain-mode 1:41"],
    );
    check("profile a { file, profile :ns:c { } }", &["a"], &["policy-namespace 1:27"]);
}

#[test]
fn a_change_to_any_profile_is_told_from_one_to_some() {
    for (rule, is_broad) in [
        ("change_profile", true),
        ("change_profile -> **", true),
        ("change_profile -> \"**\"", true),
        ("change_profile -> {,/}**", true),
        ("change_profile -> &**", true),
        ("change_profile -> unconfined", true),
        ("allow change_profile /bin/* -> *", true),
        ("change_profile unsafe /bin/x -> b", true),
        ("change_profile -> b", false),
        ("change_profile -> b//*", false),
        ("change_profile safe /bin/x -> b", false),
        ("change_profile -> unsafe", false),
        ("deny change_profile", false),
        ("audit deny change_profile -> unconfined", false),
    ] {
        let found = scan(&format!("profile a {{ file, {rule}, }}\n")).findings;
        assert_eq!(!found.is_empty(), is_broad, "{rule}: {found:?}");
    }
}

#[test]
fn what_most_programs_need_is_looked_for_in_the_profile_itself() {
    for (rules, is_enough) in [
        ("include <abstractions/base>", true),
        ("file,", true),
        ("allow file,", false),
        ("/** rmix,", true),
        ("mrw /**,", true),
        ("file /{,**} rm,", true),
        ("", false),
        ("deny file,", false),
        ("owner file,", false),
        ("/** r,", false),
        ("/usr/** mr,", false),
        ("include <abstractions/nameservice>", false),
        ("^h { file, }", false),
    ] {
        let found = scan(&format!("profile a {{\n{rules}\n}}\n")).findings;
        assert_eq!(found.is_empty(), is_enough, "{rules}: {found:?}");
    }
}

#[test]
fn what_an_author_writes_reaches_a_message_escaped_and_cut() {
    let long = "n".repeat(5_000);
    for name in [long.as_str(), "a\u{1b}[31mb", "a\u{202e}b", "a\u{0}b"] {
        for text in [
            format!("profile \"{name}\" {{ file, }}"),
            format!("profile a \"/{name}\" {{ file, }}"),
            format!("profile \":{name}:a\" {{ file, }}"),
            format!("include \"{name}\"\nprofile a {{ file, }}"),
            format!(
                "profile a {{ file, change_profile -> {name}**, change_profile -> {}, }}",
                "*".repeat(5_000)
            ),
        ] {
            for finding in scan(&text).findings {
                let said = finding.to_string();
                assert!(said.len() < 600, "{said}");
                assert!(!said.contains(['\u{1b}', '\u{202e}', '\u{0}']), "{said:?}");
            }
        }
    }
}

#[test]
fn a_text_of_very_many_profiles_is_refused() {
    let hats = |count: usize| format!("profile a {{ file, {} }}\n", "^h { } ".repeat(count));
    check(&hats(999), &["a"], &[]);
    check(&hats(1_000), &["a"], &["policy-limit"]);
    check(&format!("profile a {{ file, {}", "^h {".repeat(100_000)), &["a"], &["policy-limit"]);
}

/// That this ends soon is what is claimed.
#[test]
fn a_long_text_of_anything_is_read_in_one_go() {
    for part in [
        "{",
        "}",
        "\"",
        "\"/",
        "\\\"/",
        "include <",
        "include <\"",
        "#",
        "# ",
        "include \"",
        "@{",
        "@",
        "$",
        "a=",
        "a =(",
        "a in (",
        "profile a {",
        "^a{",
        "^a {",
        "profile ",
        "hat",
        "<",
        ",",
        "/,",
        "\\",
        "\0",
        "\n",
        "\r",
        "if ",
        "abi ",
        "abi <a>",
        "peer=(",
        "dbus (",
        "flags=(a",
        "mount ",
        "@a=\\\n",
        "change_profile -> ",
        "/x r,",
        "\u{e4}",
        "#include\n",
    ] {
        let _ = scan(&part.repeat((1 << 17) / part.len()));
        let _ = scan(&format!("profile a {{ {}", part.repeat((1 << 17) / part.len())));
    }
}

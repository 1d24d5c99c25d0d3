//! Guards: what is wrong with a certificate is told at the start, and later in the log, by its setting and its file.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::{serve, world};
use crate::common::{Place, Running, run};
use crate::support::tls::Authority;

/// `[server]` with these files.
fn configure(place: &Place, certificate: Option<&str>, key: Option<&str>) {
    let line = |name: &str, file: Option<&str>| {
        file.map_or_else(String::new, |file| format!("{name} = \"{file}\"\n"))
    };
    let lines = [line("tls_cert", certificate), line("tls_key", key)].concat();
    place.write("onelane.toml", format!("[server]\n{lines}"));
}

fn sign(place: &Place, authority: &Authority) {
    authority.signs_into(&place.path("cert.pem"), &place.path("key.pem"));
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(place.path("key.pem"), private).unwrap();
}

#[test]
fn a_certificate_that_can_not_be_used_is_named_at_the_start() {
    let (place, simulator) = world();
    let authority = Authority::new();
    sign(&place, &authority);
    place.write("other.pem", authority.signs().1);
    place.write("text.pem", "no PEM");
    place.write(
        "locked.pem",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    place.write(
        "broken.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let (cert, key) = (Some("cert.pem"), Some("key.pem"));
    let cases = [
        (
            cert,
            None,
            "server.tls_cert",
            "is nothing without server.tls_key",
        ),
        (
            None,
            key,
            "server.tls_key",
            "is nothing without server.tls_cert",
        ),
        (
            Some("missing.pem"),
            key,
            "server.tls_cert",
            "\"missing.pem\" can't be read",
        ),
        (
            cert,
            Some("missing.pem"),
            "server.tls_key",
            "\"missing.pem\" can't be read",
        ),
        (
            Some("text.pem"),
            key,
            "server.tls_cert",
            "\"text.pem\" holds no certificate",
        ),
        (
            Some("broken.pem"),
            key,
            "server.tls_cert",
            "\"broken.pem\" can't be used",
        ),
        (
            cert,
            Some("text.pem"),
            "server.tls_key",
            "\"text.pem\" holds no private key",
        ),
        (
            cert,
            Some("locked.pem"),
            "server.tls_key",
            "under a passphrase",
        ),
        (
            cert,
            Some("other.pem"),
            "server.tls_key",
            "is not the key of the certificate in cert.pem",
        ),
    ];
    for (certificate, key, setting, problem) in cases {
        configure(&place, certificate, key);
        let ended = run(&mut serve(&place, &simulator)).with(2);
        let ended = ended.noting(&[setting, problem]);
        assert!(!ended.stderr.contains("-----BEGIN"), "{ended}");
    }
}

#[test]
fn a_change_of_the_certificate_is_told_and_so_is_a_key_that_everybody_can_read() {
    let (place, simulator) = world();
    let authority = Authority::new();
    sign(&place, &authority);
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(place.path("key.pem"), open).unwrap();
    configure(&place, Some("cert.pem"), Some("key.pem"));
    let running = Running::start(&mut serve(&place, &simulator));
    let line = running.says("https://");
    running.notes("chmod 600");
    let url = line.split("https://").nth(1).unwrap();
    let url = url.split([':', ' ']).take(2).collect::<Vec<_>>().join(":");
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().worker_threads(1).build().unwrap();
    let asking = runtime.spawn(async move {
        let url = format!("https://{url}/healthz");
        loop {
            // A client for each, so that it greets anew.
            let answer = authority.client().get(&url).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    place.write("cert.pem", "gone wrong");
    let told = running.notes("the certificate in force stays");
    assert!(
        told.contains("server.tls_cert") && told.contains("cert.pem"),
        "{told}"
    );
    assert!(!asking.is_finished(), "the old one serves");
    sign(&place, &Authority::new());
    running.notes("have changed and are in force");
    runtime.shutdown_background();
    running.signal("TERM");
    running.end().with(0);
}

//! Behind a Service, for a kube-scheduler elsewhere: TLS with client certificates, and one replica that is asked.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::json;
use stowage_scheduler_extender::synthetic;
use stowage_stand_ins::api_server::ApiServer;
use stowage_stand_ins::api_server::resources::PODS;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::ahead::cluster;
use super::harness::*;
use super::pki::{Authority, Client, Identity, Secret};

const GPU: &str = "nvidia.com/gpu";

async fn extender(api: &ApiServer, secret: &Secret, more: &[&str]) -> Extender {
    let flags = secret.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Extender::ready_with(api, &flags).await
}

fn question() -> Vec<u8> {
    synthetic::request(GPU, 1, ["a", "b"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_client_with_a_certificate_of_the_right_authority_and_name_is_answered() {
    let (ours, others, servers) =
        (Authority::new("clients"), Authority::new("clients"), Authority::new("servers"));
    let api = cluster().await;
    let secret = Secret::new(&servers.server(), &ours.pem);
    let mut extender = extender(&api, &secret, &["--allowed-client-names=system:kube-scheduler"]).await;
    let address = extender.verbs;

    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let good = Client::speaking(&[&servers.pem], Some(&ours.scheduler()), &[version]);
        let answer = good.post(address, "/filter", &question()).await.unwrap();
        assert!(answer.status == 200 && answer.body.contains(r#""NodeNames":["a","b"]"#), "{answer:?}");
        let audit = good.post(address, "/debug/audit", b"").await.unwrap();
        assert_eq!(audit.status, 404, "it is for this machine alone");
        for (who, shows) in [
            ("nobody", None),
            ("another authority's", Some(others.scheduler())),
            ("one whose time is over", Some(ours.client("system:kube-scheduler", 2020))),
            ("a kubelet", Some(ours.client("system:node:a", 2100))),
            ("a server", Some(servers.server())),
        ] {
            let client = Client::speaking(&[&servers.pem], shows.as_ref(), &[version]);
            let answer = client.post(address, "/filter", &question()).await;
            assert!(answer.is_err(), "{who} is answered: {answer:?}");
        }
    }
    let mut plain = TcpStream::connect(address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"POST /filter HTTP/1.1\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said).await;
    assert!(!said.starts_with(b"HTTP"), "{said:?}");

    let log = extender.wait_for_log("A client of the verbs is refused").await;
    assert!(log.contains("peer sent no certificates"), "{log}");
    assert!(!log.contains("without TLS"), "{log}");
    // A client may hear of it before it is counted.
    eventually("all are counted", || async {
        let metrics = extender.get("/metrics").await.1;
        [("done", 4), ("refused", 11)].iter().all(|(result, count)| {
            metrics.contains(&format!("tls_handshakes_total{{result=\"{result}\"}} {count}"))
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_and_no_request_is_dropped() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let api = cluster().await;
    let mut secret = Secret::new(&old.server(), &old.pem);
    let mut extender = extender(&api, &secret, &[]).await;
    let address = extender.verbs;
    let (before, after) = (old.scheduler(), new.scheduler());
    let trusts = [&*old.pem, &*new.pem];
    let client = Client::new(&trusts, Some(&before));
    let mut kept = client.connect(address).await.unwrap();
    let first = kept.server();

    // Both authorities for a while, as whoever renews one does it.
    secret.swap(&new.server(), &format!("{}{}", old.pem, new.pem));
    let mut requests = 0;
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < DEADLINE, "the new certificate is not used");
        let mut fresh = client.connect(address).await.unwrap();
        for connection in [&mut kept, &mut fresh] {
            assert_eq!(connection.post("/filter", &question()).await.unwrap().status, 200);
            requests += 1;
        }
        if fresh.server() != first {
            break;
        }
    }
    eprintln!("({requests} requests while the certificate was renewed)");
    assert_eq!(kept.post("/filter", &question()).await.unwrap().status, 200, "it is still trusted");
    let newer = Client::new(&trusts, Some(&after));
    assert_eq!(newer.post(address, "/filter", &question()).await.unwrap().status, 200);

    // The old authority goes: who has shown its certificate is turned away, on a connection that was kept as well.
    secret.swap(&new.server(), &new.pem);
    let started = Instant::now();
    let turned_away = loop {
        assert!(started.elapsed() < DEADLINE, "the old authority is still trusted");
        let answer = kept.post("/filter", &question()).await.unwrap();
        if answer.status != 200 {
            break answer;
        }
    };
    assert!(turned_away.status == 403 && turned_away.head.contains("connection: close"), "{turned_away:?}");
    assert!(client.post(address, "/filter", &question()).await.is_err());
    assert_eq!(newer.post(address, "/filter", &question()).await.unwrap().status, 200);

    // A renewal that went wrong is told, and changes nothing.
    let (mut torn, another) = (new.server(), new.server());
    torn.key = another.key;
    secret.swap(&torn, &new.pem);
    let log = extender.wait_for_log("The TLS files cannot be used: those before stay in use.").await;
    assert!(log.contains("is not that of the first certificate in"), "{log}");
    assert_eq!(newer.post(address, "/filter", &question()).await.unwrap().status, 200);
    let metrics = extender.get("/metrics").await.1;
    assert!(metrics.contains("stowage_scheduler_extender_tls_files_refused 1"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_connects_and_says_nothing_keeps_nobody_out() {
    let authority = Authority::new("one");
    let api = cluster().await;
    let secret = Secret::new(&authority.server(), &authority.pem);
    let extender = extender(&api, &secret, &[]).await;
    let client = Client::new(&[&authority.pem], Some(&authority.scheduler()));
    let mut kept = client.connect(extender.verbs).await.unwrap();
    // More than are served at once.
    let mut silent = Vec::new();
    for _ in 0..600 {
        silent.push(TcpStream::connect(extender.verbs).await.unwrap());
    }
    assert_eq!(client.post(extender.verbs, "/filter", &question()).await.unwrap().status, 200);
    assert_eq!(kept.post("/filter", &question()).await.unwrap().status, 200);
    let closed = tokio::time::timeout(DEADLINE, silent[0].read(&mut [0])).await.expect("it is given up");
    assert!(closed.is_err() || closed.is_ok_and(|read| read == 0));
    // Nor does it hold up the end.
    assert_eq!(extender.terminate().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_replicas_behind_a_service_the_holder_of_the_lease_alone_is_ready_and_answers() {
    let authority = Authority::new("one");
    let api = cluster().await;
    let secret = Secret::new(&authority.server(), &authority.pem);
    let client = Client::new(&[&authority.pem], Some(&authority.scheduler()));
    let one = extender(&api, &secret, &["--leader-elect"]).await;
    eventually("the first leads", || async { one.get("/readyz").await.0 == 200 }).await;
    let two = extender(&api, &secret, &["--leader-elect"]).await;
    let (status, why) = two.get("/readyz").await;
    assert!(status == 503 && why.contains("another replica holds the Lease"), "{status} {why}");
    assert_eq!(two.get("/livez").await.0, 200);

    let uid = create_pod(&api, "p", GPU, 1);
    let bind = json!({ "PodName": "p", "PodNamespace": "default", "PodUID": uid, "Node": "a" }).to_string();
    let answer = client.post(two.verbs, "/bind", bind.as_bytes()).await.unwrap();
    assert!(answer.status == 503 && answer.head.contains("connection: close"), "{answer:?}");
    let answer = client.post(one.verbs, "/bind", bind.as_bytes()).await.unwrap();
    assert_eq!((answer.status, &*answer.body), (200, r#"{"Error":""}"#));

    // It gives the Lease back, so the other one need not wait for it to run out.
    assert_eq!(one.terminate().await, 0);
    eventually("the second leads", || async { two.get("/readyz").await.0 == 200 }).await;
    let answer = client.post(two.verbs, "/filter", &synthetic::request(GPU, 4, ["a", "b"])).await.unwrap();
    assert!(answer.body.contains(r#""NodeNames":["b"]"#), "it knows what the first has bound: {answer:?}");
    let used = used(&api);
    let lease = |verb: &str| (verb.to_owned(), "coordination.k8s.io".to_owned(), "leases".to_owned());
    let granted = granted("deploy/options/lease.yaml", &["stowage-scheduler-extender-lease"]);
    assert!(used.contains(&lease("update")));
    let rights: BTreeSet<_> = used.iter().filter(|right| right.2 == "leases").cloned().collect();
    assert!(rights.is_subset(&granted), "{rights:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_of_the_schedulers_that_are_named_are_bound_and_no_others() {
    let api = cluster().await;
    let extender = Extender::ready_with(&api, &["--scheduler-names=default-scheduler,gpus"]).await;
    for (name, scheduler, bound) in
        [("one", "default-scheduler", true), ("two", "gpus", true), ("three", "stowage-scheduler", false)]
    {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default" },
            "spec": { "schedulerName": scheduler, "containers": [{
                "name": "main", "image": "x", "resources": { "limits": { GPU: "1" }, "requests": { GPU: "1" } } }] },
        });
        let uid = api.store().create(&PODS, "default", pod).unwrap().uid().to_owned();
        let said = extender.bind(name, &uid, "a").await;
        assert!(said.is_empty() == bound && (bound || said.contains("--scheduler-names")), "{name}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_extenders_that_are_asked_at_once_one_binds_a_pod() {
    let api = cluster().await;
    let (one, two) = (Extender::ready(&api).await, Extender::ready(&api).await);
    for n in 0..4 {
        let name = format!("p{n}");
        let uid = create_pod(&api, &name, GPU, 1);
        let said = tokio::join!(one.bind(&name, &uid, "a"), two.bind(&name, &uid, "b"));
        let node = pod(&api, &name)["spec"]["nodeName"].as_str().unwrap().to_owned();
        let (winner, loser) = if node == "a" { said } else { (said.1, said.0) };
        assert!(winner.is_empty() && !loser.is_empty(), "{node}: {winner:?} {loser:?}");
    }
}

/// What a person does by hand, as the guide prints it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_certificates_that_the_guide_makes_are_taken() {
    let guide = include_str!("../../../docs/install.md");
    let commands = guide.split("```sh\n").find(|block| block.starts_with("openssl req -x509")).unwrap();
    let commands = commands
        .split("```")
        .next()
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("openssl") || line.starts_with("printf"));
    let folder = tempfile::tempdir().unwrap();
    let script = commands.collect::<Vec<_>>().join("\n");
    let ran = Command::new("sh").args(["-euc", &script]).current_dir(folder.path()).output().await.unwrap();
    if ran.status.code() == Some(127) {
        eprintln!("skipped: there is no openssl");
        return;
    }
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let identity = |name: &str| Identity {
        certificate: read(&format!("{name}.crt")),
        key: read(&format!("{name}.key")),
    };
    let api = cluster().await;
    let secret = Secret::new(&identity("tls"), &read("ca.crt"));
    let extender = extender(&api, &secret, &["--allowed-client-names=system:kube-scheduler"]).await;
    let client = Client::new(&[&read("ca.crt")], Some(&identity("client")));
    let answer = client.post(extender.verbs, "/filter", b"{}").await.unwrap();
    assert!(answer.body.contains(r#""Error":"the request has no Pod""#), "{answer:?}");
    assert!(guide.contains(r#"`"Error":"the request has no Pod"`"#));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_flags_that_do_not_go_together_end_it_with_a_sentence() {
    let api = cluster().await;
    let (verbs, http) = (free_port().await, free_port().await);
    for (flags, says) in [
        (&["--tls-cert-file=/nowhere"][..], "are given together, or none of them"),
        (&["--allowed-client-names=a"], "give --client-ca-file with it"),
        (
            &["--tls-cert-file=/nowhere", "--tls-private-key-file=/nowhere", "--client-ca-file=/nowhere"],
            "--tls-cert-file: cannot read /nowhere: is the Secret mounted there",
        ),
    ] {
        let mut extender = Extender::start_at(&api, verbs, http, flags);
        extender.wait_for_log(says).await;
        assert_eq!(extender.ended().await, 78);
    }
}

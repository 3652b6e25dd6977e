//! TLS towards a real RabbitMQ: authorities, host names, client certificates, and login by certificate.

mod amqp_support;

use std::path::Path;
use std::process::Command;

use amqp_support::{cast, connect, next, options, target, until, within};
use scoria_rpc::providers::amqp::{AmqpOptions, LoginMethod};
use scoria_rpc::{Health, Transport};
use scoria_testkit::{RabbitMq, free_port, program};

/// `openssl` with these arguments, in this directory.
fn openssl(dir: &Path, args: &str) {
    let mut command = Command::new(program("openssl", "openssl").unwrap());
    let out = command.current_dir(dir).args(args.split(' ')).output().unwrap();
    assert!(out.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&out.stderr));
}

/// An authority, a broker's certificate for 127.0.0.1 and one for another host, and a client's for the user `guest`.
fn certificates(dir: &Path) {
    openssl(dir, "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=testca");
    for (name, subject, alt) in [
        ("broker", "/CN=broker", "IP:127.0.0.1"),
        ("elsewhere", "/CN=elsewhere", "DNS:elsewhere.example"),
        ("client", "/CN=guest", "DNS:client"),
    ] {
        std::fs::write(dir.join("ext"), format!("subjectAltName={alt}\n")).unwrap();
        openssl(dir, &format!("req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj {subject}"));
        let sign = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext";
        openssl(dir, &format!("x509 -req -in {name}.csr -out {name}.pem {sign}"));
    }
}

/// Opens a TLS port on the running broker.
async fn listen_tls(broker: &RabbitMq, dir: &Path, name: &str, want_client: bool) -> u16 {
    let port = free_port().unwrap();
    let dir = dir.display();
    let options = format!(
        r#"[{{cacertfile,"{dir}/ca.pem"}},{{certfile,"{dir}/{name}.pem"}},{{keyfile,"{dir}/{name}.key"}},
        {{verify,verify_peer}},{{fail_if_no_peer_cert,{want_client}}}]"#
    );
    let address = format!(r#"{{"127.0.0.1",{port},inet}}"#);
    broker.ctl(&["eval", &format!("rabbit_networking:start_ssl_listener({address}, {options}, 2).")]).await.unwrap();
    port
}

fn tls(broker: &RabbitMq, port: u16, dir: &Path) -> AmqpOptions {
    let mut options = options(broker);
    options.hosts[0].port = port;
    options.rabbit.ssl = true;
    options.rabbit.ssl_ca_file = Some(dir.join("ca.pem"));
    options
}

/// Connects and sends itself a message.
async fn works(options: AmqpOptions, name: &str) {
    let transport = connect(options);
    let target = target(name);
    let mut listener = within(transport.listen(vec![target.clone()], 1)).await.unwrap();
    cast(&transport, &target, "secret", 1).await;
    assert!(next(&mut listener).await.ack().await);
    transport.close().await;
}

async fn fails(options: AmqpOptions) -> String {
    let transport = connect(options);
    let mut reason = String::new();
    until("an error", async || {
        if let Health::Down(text) = transport.health() {
            reason = text;
        }
        !reason.contains("not yet")
    })
    .await;
    transport.close().await;
    reason
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_authorities_names_and_client_certificates() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let broker = RabbitMq::start().await.unwrap();
    let plain = listen_tls(&broker, dir.path(), "broker", false).await;
    let strict = listen_tls(&broker, dir.path(), "broker", true).await;
    let elsewhere = listen_tls(&broker, dir.path(), "elsewhere", false).await;

    works(tls(&broker, plain, dir.path()), "tls").await;

    let mut system = tls(&broker, plain, dir.path());
    system.rabbit.ssl_ca_file = Some(dir.path().join("client.pem"));
    let reason = fails(system).await;
    assert!(reason.contains("ssl_ca_file"), "an authority that did not sign it: {reason}");

    let reason = fails(tls(&broker, elsewhere, dir.path())).await;
    assert!(reason.contains("TLS failed"), "another host's certificate: {reason}");
    let mut any_name = tls(&broker, elsewhere, dir.path());
    any_name.rabbit.ssl_enforce_hostname_verification = false;
    works(any_name, "anyname").await;

    fails(tls(&broker, strict, dir.path())).await;
    let mut client = tls(&broker, strict, dir.path());
    client.rabbit.ssl_cert_file = Some(dir.path().join("client.pem"));
    client.rabbit.ssl_key_file = Some(dir.path().join("client.key"));
    works(client.clone(), "client").await;

    let mut without = tls(&broker, plain, dir.path());
    without.rabbit.ssl = false;
    fails(without).await;

    // The certificate's name is the user, and the password of the URL is not used.
    let plugin = r#"{ok, Dirs} = file:list_dir(code:lib_dir(rabbit) ++ "/.."),
        [D] = [D || D <- Dirs, lists:prefix("rabbitmq_auth_mechanism_ssl-", D)],
        code:add_pathz(code:lib_dir(rabbit) ++ "/../" ++ D ++ "/ebin"),
        application:set_env(rabbit, auth_mechanisms, ['PLAIN', 'AMQPLAIN', 'EXTERNAL']),
        application:set_env(rabbit, ssl_cert_login_from, common_name),
        application:set_env(rabbit, ssl_options, [{verify, verify_peer}]),
        {ok, _} = application:ensure_all_started(rabbitmq_auth_mechanism_ssl),
        rabbit_registry:register(auth_mechanism, <<"EXTERNAL">>, rabbit_auth_mechanism_ssl)."#;
    broker.ctl(&["eval", plugin]).await.unwrap();
    client.rabbit.rabbit_login_method = LoginMethod::External;
    client.hosts[0].password = "not asked for".to_owned();
    works(client, "external").await;
}

//! Tasks end with what they were for: tokio counts them.

use std::time::Duration;

use livepeer_tokio::core::Time;
use livepeer_tokio::core::http::{Trust, Url};
use livepeer_tokio::core::trickle::subscriber::{Config, Subscriber};
use livepeer_tokio::core::trickle::{Start, server};
use livepeer_tokio::{Server, tls};

#[tokio::test]
async fn no_task_outlives_its_machine() {
    let alive = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = alive();
    let driver = livepeer_tokio::driver();
    let config = server::Config {
        autocreate: true,
        ..server::Config::default()
    };
    let relay = driver.drive(server::Server::new(driver.now(), config));
    relay
        .with(|m, now| m.create_channel(now, "x", Default::default()))
        .expect("a free name");
    let identity = tls::Identity::self_signed("127.0.0.1", driver.now()).expect("an address");
    let config = tls::server_config(&identity).expect("its own key");
    let free = "127.0.0.1:0".parse().expect("an address");
    let socket = Server::bind(&relay, free, Some(config))
        .await
        .expect("a free port");
    let url = format!("https://{}/ai/trickle/x", socket.local_addr());
    let url = Url::parse(&url).expect("a URL");
    let readers: Vec<_> = (0..20)
        .map(|_| {
            let config = Config {
                trust: Trust::FirstUse,
                ..Config::default()
            };
            driver.drive(Subscriber::new(
                Time::ZERO,
                config,
                url.clone(),
                Start::Next,
            ))
        })
        .collect();
    while socket.connections() < 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(alive() > before + 40);
    drop(readers);
    drop(relay);
    drop(driver);
    for _ in 0..1000 {
        if alive() == before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{} tasks are left", alive() - before);
}

//! An orchestrator in this process, on a real socket, that misbehaves as it is told.

use std::sync::mpsc;
use std::thread;

use livepeer_core::chain::ChainView;
use livepeer_core::http::Url;
use livepeer_core::money::Price;
use livepeer_orchestrator::{Config, Orchestrator, Payments, Quirks};
use livepeer_runtime::{KeyHolder as _, LocalKey, MemoryStore, seed};
use livepeer_tokio::{Server, tls};

/// Starts one; its URL. `None` takes no money. It lives as long as the test program.
pub(crate) fn start(price: Option<i64>, quirks: Quirks) -> String {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(serve(price, quirks, tell));
    });
    told.recv().expect("it tells its address")
}

async fn serve(price: Option<i64>, quirks: Quirks, tell: mpsc::Sender<String>) {
    let driver = livepeer_tokio::driver();
    // Its address is part of what it tells, so the port is looked for first.
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = port.local_addr().expect("it is bound");
    drop(port);
    let url = Url::parse(&format!("https://{address}")).expect("a URL");
    let key = LocalKey::new(&[7; 32]).expect("a key");
    let account = key.address();
    let mut config = Config {
        quirks,
        ..Config::new(url.clone(), account)
    };
    if let Some(price) = price {
        let price = Price::new(price, 1).expect("a price");
        let chain = ChainView::development_at(driver.now());
        config = config.on_chain(Payments::new(account, price, chain));
    }
    let identity = tls::Identity::self_signed(url.host(), driver.now()).expect("a certificate");
    let tls = tls::server_config(&identity).expect("a certificate");
    let machine = driver
        .clone()
        .with_key(key)
        .with_store(MemoryStore::default())
        .drive(Orchestrator::new(driver.now(), config, seed()));
    let _server = Server::bind(&machine, address, Some(tls))
        .await
        .expect("the port was free");
    tell.send(url.to_string()).expect("the test waits for it");
    while machine.next().await.is_some() {}
}

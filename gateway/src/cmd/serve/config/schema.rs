//! The keys of a configuration, as one table: what each holds, what it is if nobody says, and whether it may change
//! while the gateway runs.

/// The form of a value, as far as its file knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A string. Amounts may stand there as whole numbers too.
    Text,
    /// An array of strings.
    List,
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Number,
}

/// A key. In its path, `*` stands for any word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) path: &'static str,
    pub(super) form: Form,
    /// The value as the environment would say it; empty for nothing.
    pub(super) default: &'static str,
    /// Whether a reload may change it.
    pub(super) live: bool,
}

const fn fixed(path: &'static str, form: Form, default: &'static str) -> Row {
    Row {
        path,
        form,
        default,
        live: false,
    }
}

const fn live(path: &'static str, form: Form, default: &'static str) -> Row {
    Row {
        path,
        form,
        default,
        live: true,
    }
}

/// Where operators are answered if nobody says: in a file for the gateway's own user, and on a port for figures.
#[cfg(unix)]
const OPS: &str = "unix:ops.sock,127.0.0.1:5935";
#[cfg(not(unix))]
const OPS: &str = "127.0.0.1:5935";

/// All keys.
pub(super) const ROWS: &[Row] = &[
    fixed("serve.listen", Form::List, "127.0.0.1:9935"),
    fixed("serve.ops", Form::List, OPS),
    live("serve.public_url", Form::Text, ""),
    fixed("serve.threads", Form::Number, "1"),
    fixed("serve.runtime", Form::Text, "tokio"),
    live("serve.trusted_proxies", Form::List, ""),
    live("serve.cors", Form::List, ""),
    live("serve.drain_grace", Form::Text, "5s"),
    live("serve.drain", Form::Text, "30s"),
    live("serve.drain_live", Form::Text, "10m"),
    fixed("serve.allow_no_auth", Form::Flag, "false"),
    fixed("serve.socket_mode", Form::Text, "0600"),
    live("serve.tls.cert", Form::Text, ""),
    live("serve.tls.key", Form::Text, ""),
    fixed("ops.metrics_open", Form::Flag, "false"),
    live("payer.signers", Form::List, ""),
    live("payer.signer_headers.*", Form::Text, ""),
    fixed("payer.keystore", Form::Text, ""),
    fixed("payer.password_file", Form::Text, ""),
    fixed("payer.key_file", Form::Text, ""),
    fixed("payer.offchain", Form::Flag, "false"),
    live("payer.max_spend_per_hour", Form::Text, ""),
    live("chain.rpc", Form::List, ""),
    fixed("chain.chain_id", Form::Number, ""),
    fixed("chain.controller", Form::Text, ""),
    live("chain.price_feed", Form::Text, ""),
    live("chain.eth_usd", Form::Text, ""),
    fixed("chain.static", Form::Flag, "false"),
    live(
        "orchestrators.sources",
        Form::List,
        "list,discovery,signer,subgraph,chain",
    ),
    live("orchestrators.all", Form::Flag, "false"),
    live("orchestrators.list", Form::List, ""),
    live("orchestrators.discovery", Form::Text, ""),
    live("orchestrators.discovery_headers.*", Form::Text, ""),
    live("orchestrators.subgraph", Form::Text, ""),
    live("orchestrators.runners", Form::List, ""),
    live("orchestrators.only", Form::List, ""),
    live("orchestrators.block", Form::List, ""),
    live("orchestrators.names.*", Form::Text, ""),
    live("orchestrators.refresh", Form::Text, "60s"),
    fixed("orchestrators.pins", Form::Text, ""),
    fixed("orchestrators.trust", Form::Text, "pin"),
    live("prices.max", Form::Text, ""),
    live("prices.file", Form::Text, ""),
    live("prices.*", Form::Text, ""),
    live("pools.pipelines", Form::List, ""),
    live("pools.size", Form::Number, "8"),
    live("pools.tries", Form::Number, "20"),
    live("pools.same_tries", Form::Number, "3"),
    live("pools.deadline", Form::Text, "2s"),
    live("pools.extra_nodes", Form::Number, "0"),
    live("pools.selector.price", Form::Number, "2"),
    live("pools.selector.latency", Form::Number, "2"),
    live("pools.selector.reliability", Form::Number, "4"),
    live("pools.selector.spread", Form::Number, "1"),
    live("pools.standby", Form::Text, "10s"),
    live("pools.warm_up", Form::List, ""),
    live("models.alias.*", Form::Text, ""),
    live("models.set.*.max_tokens", Form::Number, ""),
    live("models.set.*.size", Form::Text, ""),
    live("models.set.*.hidden", Form::Flag, ""),
    live("models.backend.*.name", Form::Text, ""),
    live("models.backend.*.surfaces", Form::List, ""),
    live("models.backend.*.model", Form::Text, ""),
    live("models.backend.*.byoc.capability", Form::Text, ""),
    live("models.backend.*.byoc.path", Form::Text, ""),
    live("models.backend.*.byoc.timeout", Form::Text, ""),
    live("models.backend.*.app.name", Form::Text, ""),
    live("models.backend.*.app.path", Form::Text, ""),
    live("defaults.max_tokens", Form::Number, "1024"),
    live("defaults.size", Form::Text, "1024x1024"),
    live("audio.substitute_wav", Form::Flag, "false"),
    live("audio.voices.*", Form::Text, ""),
    live("apps.allow", Form::List, ""),
    live("apps.idle", Form::Text, "30s"),
    live("images.keep", Form::Text, "60m"),
    live("images.nsfw", Form::Text, "flag"),
    live("sse.keep_alive", Form::Text, "15s"),
    live("sse.early_head", Form::Text, "10s"),
    live("sse.done_on_native", Form::Flag, "false"),
    live("limits.max_tokens", Form::Number, "8192"),
    live("limits.inflight", Form::Number, "4096"),
    live("limits.connections", Form::Number, "10000"),
    live("limits.answer", Form::Text, "300s"),
    live("limits.stream_silence", Form::Text, "120s"),
    live("limits.write_stall", Form::Text, "60s"),
    fixed("ingest.rtmp", Form::Text, ""),
    fixed("ingest.webrtc_udp", Form::Text, ""),
    fixed("ingest.extra_hosts", Form::List, ""),
    fixed("ingest.ice_servers", Form::List, ""),
    fixed("ingest.max_viewers", Form::Number, "5"),
    live("ingest.max_streams", Form::Number, "1000"),
    live("ingest.takeover", Form::Flag, "true"),
    live("ingest.keys.*", Form::Text, ""),
    live("ingest.webhook", Form::Text, ""),
    live("ingest.webhook_key", Form::Text, ""),
    live("ingest.heartbeat", Form::Text, ""),
    live("ingest.heartbeat_headers.*", Form::Text, ""),
    live("media.playback", Form::Text, ""),
    fixed("media.in_step", Form::Flag, "false"),
    live("media.hls", Form::Flag, "false"),
    live("media.mediamtx.api", Form::Text, ""),
    live("media.mediamtx.user", Form::Text, "admin"),
    live("media.mediamtx.password_file", Form::Text, ""),
    live("events.webhook", Form::Text, ""),
    live("events.webhook_headers.*", Form::Text, ""),
    fixed("store.path", Form::Text, ""),
    fixed("store.objects", Form::Text, "memory"),
    live("metrics.per_model", Form::Flag, "true"),
    live("transparency.headers", Form::Text, "full"),
    live("transparency.server_timing", Form::Flag, "false"),
    live("log.level", Form::Text, "warn"),
    fixed("log.format", Form::Text, "text"),
    live("log.access", Form::Flag, "true"),
];

/// The list of tables in a file whose keys have the name of each table in their paths, though a file has it beside them.
pub(super) const NAMED: [&str; 2] = ["models", "backend"];

/// Keys and tables that belong to what `serve` does not do yet, and what that is.
pub(super) const LATER: &[(&str, &str)] = &[
    ("serve.tls.client_ca", "certificates of clients"),
    ("ops.admin_token_file", "keys of operators"),
    ("ops.cli", "routes for livepeer_cli"),
    ("ops.console", "the console"),
    ("apps.replay_body", "another limit on calls of apps"),
    ("tenants", "keys of tenants"),
    ("media.segment", "segments of another length"),
    ("ledger", "accounts of tenants"),
    ("events.kafka", "events over Kafka"),
    ("metrics.otlp", "figures over OTLP"),
    ("trace", "traces"),
    ("fleet", "several instances as one"),
];

/// The words of a path.
pub(super) type Path = Vec<String>;

/// Whether a pattern of the table names a path, or the beginning of longer ones.
fn fits(pattern: &str, path: &[String]) -> Option<bool> {
    let words: Vec<&str> = pattern.split('.').collect();
    let begins = path.len() <= words.len()
        && words
            .iter()
            .zip(path)
            .all(|(word, said)| *word == "*" || word == said);
    begins.then_some(path.len() == words.len())
}

/// The row of a key.
pub(super) fn row(path: &[String]) -> Option<&'static Row> {
    ROWS.iter().find(|row| fits(row.path, path) == Some(true))
}

/// Whether a path is a table of keys.
pub(super) fn is_table(path: &[String]) -> bool {
    ROWS.iter().any(|row| fits(row.path, path) == Some(false))
}

/// The feature that is not there yet to which a path belongs.
pub(super) fn later(path: &[String]) -> Option<&'static str> {
    let found = LATER
        .iter()
        .find(|(later, _)| fits(later, path) == Some(true));
    found.map(|(_, what)| *what)
}

/// The words that may stand at the end of a path.
pub(super) fn siblings(table: &[String]) -> Vec<&'static str> {
    let mut words: Vec<&str> = { ROWS.iter().map(|row| row.path) }
        .filter(|path| fits(path, table) == Some(false))
        .filter_map(|path| path.split('.').nth(table.len()))
        .filter(|word| *word != "*")
        .collect();
    words.dedup();
    words
}

/// The variable of the environment that sets a key; `None` for keys with names that are free.
pub(super) fn variable(row: &Row) -> Option<String> {
    let name = row.path.replace('.', "_").to_uppercase();
    (!row.path.contains('*')).then(|| format!("LIVEPEER_{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        text.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn every_path_is_a_key_a_table_or_later_and_never_two_of_them() {
        for row in ROWS {
            assert!(later(&path(row.path)).is_none(), "{}", row.path);
            assert!(!is_table(&path(row.path)), "{}", row.path);
        }
        for (later, _) in LATER {
            let known = row(&path(later)).filter(|row| !row.path.ends_with('*'));
            assert!(known.is_none() && !is_table(&path(later)), "{later}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_one_word_and_a_named_key_comes_first() {
        assert_eq!(row(&path("prices.max")).expect("a key").path, "prices.max");
        assert_eq!(row(&path("prices.llm")).expect("a key").path, "prices.*");
        assert!(is_table(&path("models.set.x")) && row(&path("models.set.x.y")).is_none());
        assert_eq!(
            siblings(&path("models.set.x")),
            ["max_tokens", "size", "hidden"]
        );
    }
}

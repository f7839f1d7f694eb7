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
    /// As the environment would say it; empty for nothing.
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

/// All keys.
pub(super) const ROWS: &[Row] = &[
    fixed("serve.listen", Form::List, "127.0.0.1:9935"),
    fixed("serve.ops", Form::List, "127.0.0.1:5935"),
    live("serve.public_url", Form::Text, ""),
    fixed("serve.threads", Form::Number, "1"),
    fixed("serve.runtime", Form::Text, "tokio"),
    live("serve.trusted_proxies", Form::List, ""),
    live("serve.cors", Form::List, ""),
    live("serve.drain_grace", Form::Text, "5s"),
    live("serve.drain", Form::Text, "30s"),
    fixed("serve.allow_no_auth", Form::Flag, "false"),
    live("payer.signers", Form::List, ""),
    live("payer.signer_headers.*", Form::Text, ""),
    fixed("payer.keystore", Form::Text, ""),
    fixed("payer.password_file", Form::Text, ""),
    fixed("payer.key_file", Form::Text, ""),
    fixed("payer.offchain", Form::Flag, "false"),
    live("payer.max_spend_per_hour", Form::Text, ""),
    fixed("chain.rpc", Form::List, ""),
    fixed("chain.chain_id", Form::Number, ""),
    fixed("chain.controller", Form::Text, ""),
    fixed("chain.static", Form::Flag, "false"),
    live("orchestrators.list", Form::List, ""),
    live("orchestrators.discovery", Form::Text, ""),
    live("orchestrators.discovery_headers.*", Form::Text, ""),
    live("orchestrators.only", Form::List, ""),
    live("orchestrators.block", Form::List, ""),
    live("orchestrators.names.*", Form::Text, ""),
    fixed("orchestrators.pins", Form::Text, ""),
    fixed("orchestrators.trust", Form::Text, "pin"),
    live("prices.max", Form::Text, ""),
    live("prices.*", Form::Text, ""),
    live("pools.pipelines", Form::List, ""),
    live("pools.standby", Form::Text, "10s"),
    live("models.alias.*", Form::Text, ""),
    live("models.set.*.max_tokens", Form::Number, ""),
    live("models.set.*.size", Form::Text, ""),
    live("models.set.*.hidden", Form::Flag, ""),
    live("defaults.max_tokens", Form::Number, "1024"),
    live("defaults.size", Form::Text, "1024x1024"),
    live("audio.substitute_wav", Form::Flag, "false"),
    live("audio.voices.*", Form::Text, ""),
    live("images.keep", Form::Text, "60m"),
    live("images.nsfw", Form::Text, "flag"),
    live("sse.keep_alive", Form::Text, "15s"),
    live("sse.early_head", Form::Text, "10s"),
    live("sse.done_on_native", Form::Flag, "false"),
    live("limits.max_tokens", Form::Number, "8192"),
    live("limits.inflight", Form::Number, "4096"),
    live("limits.answer", Form::Text, "300s"),
    live("limits.stream_silence", Form::Text, "120s"),
    live("limits.write_stall", Form::Text, "60s"),
    fixed("store.path", Form::Text, ""),
    fixed("store.objects", Form::Text, "memory"),
    live("transparency.headers", Form::Text, "full"),
    live("transparency.server_timing", Form::Flag, "false"),
    live("log.access", Form::Flag, "true"),
];

/// Keys and tables that belong to what the gateway does not do yet.
pub(super) const LATER: &[&str] = &[
    "serve.tls",
    "serve.drain_live",
    "ops",
    "chain.price_feed",
    "chain.eth_usd",
    "orchestrators.sources",
    "orchestrators.all",
    "orchestrators.subgraph",
    "orchestrators.runners",
    "orchestrators.refresh",
    "prices.file",
    "pools.size",
    "pools.tries",
    "pools.same_tries",
    "pools.deadline",
    "pools.extra_nodes",
    "pools.selector",
    "pools.warm_up",
    "models.backend",
    "apps",
    "tenants",
    "limits.connections",
    "ingest",
    "media",
    "ledger",
    "events",
    "metrics",
    "trace",
    "log.level",
    "log.format",
    "fleet",
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

/// Whether a path belongs to what is not done yet.
pub(super) fn is_later(path: &[String]) -> bool {
    LATER.iter().any(|later| fits(later, path) == Some(true))
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
            assert!(!is_later(&path(row.path)), "{}", row.path);
            assert!(!is_table(&path(row.path)), "{}", row.path);
        }
        for later in LATER {
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

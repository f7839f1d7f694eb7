//! The payers that jobs are played with.

use livepeer_core::Signers;
use livepeer_core::chain::ChainView;
use livepeer_core::handshake::Identity;
use livepeer_core::http::Url;
use livepeer_core::payment::Payer;
use livepeer_core::payment::mint::Policy;
use livepeer_core::payment::session::LocalAccount;
use livepeer_core::wire::identity_digest;

use crate::Key;

/// A payer and what it says to orchestrators: without a chain, with `key` of its own, or by a remote signer, as the byte
/// has it.
pub(super) fn payer(flavour: u8, key: &Key, chain: &ChainView) -> (Payer, Identity) {
    let payer = match flavour % 4 {
        0 => return (Payer::Offchain, Identity::Offchain),
        1 | 2 => {
            let policy = Policy::own_key(key.address());
            let account = LocalAccount::new(policy, chain.clone(), [1; 32]);
            Payer::Account(Box::new(account))
        }
        _ => {
            let url = Url::parse("http://signer:7936").expect("a URL");
            Payer::Remote(Signers::new(url))
        }
    };
    let identity = Identity::Static {
        address: key.address(),
        signature: key.sign(identity_digest(key.address())),
    };
    (payer, identity)
}

//! Rules that hold in every run, checked with plain sets and sums.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use livepeer_core::money::Amount;
use livepeer_core::payment::Budget;
use livepeer_core::payment::Ticket;
use livepeer_core::payment::ledger::AccountId;
use livepeer_core::payment::nonce::MAX_NONCES;
use livepeer_core::payment::ticket::expected_value;
use livepeer_core::wire::Payment;

use crate::purse::recall;

type Hash = [u8; 32];

/// See the [module](super).
#[derive(Debug, Default)]
pub struct Model {
    /// The hash of the ticket that each nonce of each commitment was used for.
    signed: BTreeMap<(Hash, u32), [u8; 32]>,
    /// The tickets ever credited, over all lives of the recipient.
    credited: BTreeSet<(Hash, u32)>,
    /// Credits and debits of each account since the recipient's last start.
    accounts: BTreeMap<AccountId, (Amount, Amount)>,
    /// All that was ever credited.
    pub total_credited: Amount,
    /// The highest nonce of each commitment that left the payer, and the payment it was in.
    sent: BTreeMap<Hash, (u32, [u8; 32])>,
    /// The expected value of all payments that left the payer.
    total_sent: Amount,
    /// Hashes of the payments that left the payer.
    payments: BTreeSet<[u8; 32]>,
}

impl Model {
    fn tickets(payment: &Payment) -> impl Iterator<Item = Ticket> + '_ {
        let params = payment.ticket_params.as_ref();
        let sender = payment.sender;
        payment
            .tickets
            .iter()
            .filter_map(move |sent| Some(Ticket::new(params?, sender, sent.nonce)))
    }

    /// A payment was signed: by a signer, or by the payer itself.
    pub fn signed(&mut self, payment: &Payment) {
        for ticket in Self::tickets(payment) {
            let key = (ticket.recipient_rand_hash, ticket.sender_nonce);
            let hash = ticket.hash();
            let before = self.signed.insert(key, hash);
            assert!(
                before.is_none_or(|before| before == hash),
                "nonce {} was used for two different tickets",
                ticket.sender_nonce
            );
            let nonce = ticket.sender_nonce as usize;
            assert!(
                (1..=MAX_NONCES).contains(&nonce),
                "nonce {nonce} is out of bounds"
            );
        }
    }

    /// A payment left the payer, perhaps not for the first time; `store` is what the payer would know after a crash.
    pub fn sent(&mut self, payment: &Payment, store: &BTreeMap<String, Bytes>) {
        let id = livepeer_core::sign::keccak(&[&payment.to_protobuf()]);
        let (Some(params), Some(first)) = (&payment.ticket_params, payment.tickets.first()) else {
            panic!("a payment without tickets left the payer");
        };
        if !self.payments.insert(id) {
            return;
        }
        let last = payment
            .tickets
            .last()
            .map_or(first.nonce, |last| last.nonce);
        let before = self.sent.insert(params.recipient_rand_hash, (last, id));
        assert!(
            before.is_none_or(|(before, _)| before < first.nonce),
            "nonce {} follows {before:?} in another payment",
            first.nonce
        );
        self.total_sent += &Self::worth(payment);
        let counted = recall(Budget::unlimited(), store).spent();
        assert!(
            counted >= self.total_sent,
            "a payment left before it was recorded"
        );
    }

    /// Whether a recipient's store has a nonce of a commitment, so that it is known after a crash.
    fn keeps(store: &BTreeMap<String, Bytes>, hash: &Hash, nonce: u32) -> bool {
        let of = format!("nonces:0x{}:", hex::encode(hash));
        let records = store.iter().filter(|(key, _)| key.starts_with(&of));
        // The block at which the commitment expires, and four bytes for each nonce.
        let mut nonces = records.flat_map(|(_, kept)| kept[8..].chunks_exact(4));
        nonces.any(|kept| kept == nonce.to_be_bytes())
    }

    /// The recipient says, with its chain at that block, that the first `count` tickets of a payment are on account;
    /// `store` is what it would know after a crash.
    pub fn credited(
        &mut self,
        account: &AccountId,
        payment: &Payment,
        count: usize,
        value: &Amount,
        block: u64,
        store: &BTreeMap<String, Bytes>,
    ) {
        let params = payment.ticket_params.as_ref();
        // Of what has expired nothing need be kept: it is refused anyway.
        let expired = params.is_some_and(|params| params.expiration_block <= block.into());
        let mut sum = Amount::zero();
        for ticket in Self::tickets(payment).take(count) {
            let key = (ticket.recipient_rand_hash, ticket.sender_nonce);
            assert!(
                self.signed.contains_key(&key),
                "nobody signed what was credited"
            );
            assert!(self.credited.insert(key), "{key:?} was credited twice");
            assert!(
                expired || Self::keeps(store, &key.0, key.1),
                "{key:?} was credited before it was durable"
            );
            sum += &expected_value(&ticket.face_value, &ticket.win_prob);
        }
        assert_eq!(sum, *value, "the credit is not the tickets' worth");
        self.total_credited += value;
        self.accounts.entry(account.clone()).or_default().0 += value;
    }

    /// The recipient debited a job.
    pub fn debited(&mut self, account: &AccountId, fee: &Amount) {
        self.accounts.entry(account.clone()).or_default().1 += fee;
    }

    /// The recipient says what is on account.
    pub fn balance(&self, account: &AccountId, balance: Option<&Amount>) {
        let (credits, debits) = self.accounts.get(account).cloned().unwrap_or_default();
        let balance = balance.cloned().unwrap_or_default();
        assert!(balance >= Amount::zero(), "metering overdrew {account:?}");
        assert_eq!(
            credits - debits,
            balance,
            "the balance of {account:?} does not add up"
        );
    }

    /// All credits of an account since the recipient's last start.
    #[must_use]
    pub fn credits(&self, account: &AccountId) -> Amount {
        let account = self.accounts.get(account);
        account.map_or_else(Amount::zero, |(credits, _)| credits.clone())
    }

    /// The recipient forgot its balances, as it does when it restarts.
    pub fn recipient_restarted(&mut self) {
        self.accounts.clear();
    }

    /// The worth of all tickets of a payment.
    #[must_use]
    pub fn worth(payment: &Payment) -> Amount {
        Self::tickets(payment)
            .map(|ticket| ticket.expected_value())
            .sum()
    }
}

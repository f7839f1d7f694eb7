//! Balances and nonces against the simplest thing that could be right.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use livepeer_core::money::{Amount, Price};
use livepeer_core::payment::ledger::{
    AccountId, Balances, Completion, SenderBalance, min_credit, worth,
};
use livepeer_core::payment::nonce::{BadNonce, MAX_NONCES, NonceWindows, SenderNonces};
use livepeer_core::{Address, Time};

use super::Reel;

/// A step of the play.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A recipient credits the n-th account.
    Credit(u8, u8),
    /// A recipient debits the n-th account, covered or not.
    Debit(u8, u8),
    /// A recipient debits the n-th account if that is covered.
    DebitCovered(u8, u8),
    /// A recipient takes all there is on the n-th account.
    Reserve(u8),
    /// A recipient fixes the price of the n-th account.
    Pin(u8, u8),
    /// A recipient sweeps.
    Sweep,
    /// Time passes: so many seconds.
    Pass(u8),
    /// A recipient sees a nonce under the n-th commitment.
    Nonce(u8, u16),
    /// The chain goes on by so many blocks.
    Blocks(u8),
    /// A sender issues nonces under the n-th commitment.
    Issue(u8, u8),
    /// A sender pays a fee with tickets of that worth, and it ends so.
    Pay(u8, u8, u8),
}

impl Step {
    /// The next step of a reel.
    #[must_use]
    pub fn read(reel: &mut Reel<'_>) -> Self {
        match reel.below(12) {
            0 => Self::Credit(reel.byte(), reel.byte()),
            1 => Self::Debit(reel.byte(), reel.byte()),
            2 => Self::DebitCovered(reel.byte(), reel.byte()),
            3 => Self::Reserve(reel.byte()),
            4 => Self::Pin(reel.byte(), reel.byte()),
            5 => Self::Sweep,
            6 => Self::Pass(reel.byte()),
            7 | 8 => Self::Nonce(reel.byte(), u16::from(reel.byte()) * 3),
            9 => Self::Blocks(reel.byte()),
            10 => Self::Issue(reel.byte(), reel.byte()),
            _ => Self::Pay(reel.byte(), reel.byte(), reel.byte()),
        }
    }
}

const TTL: Duration = Duration::from_secs(600);

/// How long after its first nonce a commitment expires.
const LIFE: u64 = 40;

#[derive(Debug)]
struct Account {
    amount: i64,
    price: Option<i64>,
    active: Time,
}

/// Plays steps against ledgers and their doubles.
#[derive(Debug)]
pub struct Player {
    now: Time,
    swept: Time,
    block: u64,
    balances: Balances,
    accounts: BTreeMap<u8, Account>,
    windows: NonceWindows,
    seen: BTreeMap<u8, (u64, BTreeSet<u32>)>,
    sender: SenderNonces,
    issued: BTreeMap<u8, u32>,
    turned: u8,
    balance: SenderBalance,
    double: i64,
}

fn id(n: u8) -> AccountId {
    AccountId {
        sender: Address([n % 2; 20]),
        session: format!("job-{}", n % 5 / 2),
    }
}

fn wei(n: i64) -> Amount {
    Amount::ratio(n, 1).expect("one is not zero")
}

impl Default for Player {
    fn default() -> Self {
        let now = Time::from_secs(1_000);
        Self {
            now,
            swept: now,
            block: 1_000,
            balances: Balances::new(now, TTL),
            accounts: BTreeMap::new(),
            windows: NonceWindows::default(),
            seen: BTreeMap::new(),
            sender: SenderNonces::new([0; 32], 0),
            issued: BTreeMap::new(),
            turned: 0,
            balance: SenderBalance::default(),
            double: 0,
        }
    }
}

impl Player {
    /// Plays one.
    ///
    /// # Panics
    /// If ledger and double differ, or an invariant of the payments spec (19) breaks.
    pub fn play(&mut self, step: &Step) {
        match *step {
            Step::Credit(n, by) => {
                let by = i64::from(by);
                let credited = self.balances.credit(self.now, &id(n), &wei(by));
                assert!(credited.is_ok(), "there are few accounts");
                self.account(n).amount += by;
            }
            Step::Debit(n, by) => {
                let by = i64::from(by);
                let debited = self.balances.debit(self.now, &id(n), &wei(by));
                assert!(debited.is_ok(), "there are few accounts");
                self.account(n).amount -= by;
            }
            Step::DebitCovered(n, by) => self.debit_covered(n, i64::from(by)),
            Step::Reserve(n) => {
                let taken = self.balances.reserve(&id(n));
                let account = self.accounts.get_mut(&key(n));
                let had = account.map_or(0, |account| std::mem::take(&mut account.amount));
                assert_eq!(taken, wei(had));
            }
            Step::Pin(n, price) => {
                let price = i64::from(price);
                let pinned = Price::new(price, 1).expect("a price");
                assert!(self.balances.pin_price(self.now, &id(n), pinned).is_ok());
                self.account(n).price.get_or_insert(price);
            }
            Step::Sweep => self.sweep(),
            Step::Pass(seconds) => self.now = self.now + Duration::from_secs(seconds.into()),
            Step::Nonce(n, nonce) => self.nonce(n, nonce.into()),
            Step::Blocks(blocks) => self.blocks(blocks.into()),
            Step::Issue(n, count) => self.issue(n, count.into()),
            Step::Pay(fee, ev, how) => self.pay(fee.into(), ev.into(), how),
        }
        self.check();
    }

    fn account(&mut self, n: u8) -> &mut Account {
        let now = self.now;
        let account = self.accounts.entry(key(n)).or_insert(Account {
            amount: 0,
            price: None,
            active: now,
        });
        account.active = now;
        account
    }

    fn debit_covered(&mut self, n: u8, by: i64) {
        let got = self.balances.debit_covered(self.now, &id(n), &wei(by));
        let now = self.now;
        match self.accounts.get_mut(&key(n)) {
            Some(account) if account.amount >= by => {
                account.amount -= by;
                account.active = now;
                assert_eq!(got.as_ref(), Ok(&wei(account.amount)));
                assert!(account.amount >= 0, "metering never overdraws");
            }
            Some(account) => {
                let short = got.expect_err("it does not cover the fee");
                assert_eq!(short.balance, Some(wei(account.amount)));
            }
            None => assert_eq!(got.expect_err("there is no account").balance, None),
        }
    }

    fn sweep(&mut self) {
        let next = self.balances.sweep(self.now);
        assert!(next > self.now, "the next sweep is later");
        if self.swept + TTL <= self.now {
            self.swept = self.now;
            let now = self.now;
            self.accounts
                .retain(|_, account| account.active + TTL >= now);
        }
    }

    fn nonce(&mut self, n: u8, nonce: u32) {
        let hash = [n % 3; 32];
        let expires = self.block + LIFE;
        let got = self.windows.accept(hash, nonce, expires);
        let (_, seen) = self
            .seen
            .entry(n % 3)
            .or_insert_with(|| (expires, BTreeSet::new()));
        let wanted = if seen.contains(&nonce) {
            Err(BadNonce::Seen)
        } else if seen.len() >= MAX_NONCES {
            Err(BadNonce::TooMany)
        } else {
            seen.insert(nonce);
            Ok(())
        };
        assert_eq!(got, wanted);
    }

    fn blocks(&mut self, by: u64) {
        self.block += by;
        let block = self.block;
        let cleaned: BTreeSet<_> = self.windows.clean(block).collect();
        let expired = self
            .seen
            .iter()
            .filter(|(_, (expires, _))| *expires <= block);
        let expired: BTreeSet<_> = expired.map(|(n, _)| [*n; 32]).collect();
        assert_eq!(cleaned, expired);
        self.seen.retain(|_, (expires, _)| *expires > block);
    }

    fn issue(&mut self, n: u8, count: u32) {
        let n = n % 3;
        self.sender.turn_to([n; 32]);
        if self.turned != n {
            // Another commitment begins at one; a sender never turns back to an old one.
            self.turned = n;
            self.issued.insert(n, 0);
        }
        let last = self.issued.entry(n).or_insert(0);
        match self.sender.issue(count) {
            Some(range) => {
                assert_eq!((*range.start(), *range.end()), (*last + 1, *last + count));
                *last += count;
            }
            None => assert!((*last + count) as usize > MAX_NONCES),
        }
        assert_eq!(self.sender.last(), *last);
        assert!(*last as usize <= MAX_NONCES);
        assert_eq!(self.sender.worn(), *last >= 500);
    }

    fn pay(&mut self, fee: i64, ev: i64, how: u8) {
        let (fee_wei, ev_wei) = (wei(fee), wei(ev));
        let wanted = min_credit(&fee_wei, &ev_wei);
        let existing = self.balance.amount().clone();
        let staged = self.balance.stage(&wanted, &ev_wei);
        assert!(
            self.balance.amount().is_zero(),
            "what is staged cannot be spent twice"
        );
        // (payments spec 19-1, 19-2)
        let covered = existing.clone() + staged.new_credit.clone();
        assert_eq!(staged.tickets == 0, existing >= wanted || ev == 0);
        if ev > 0 {
            assert!(covered >= wanted);
        }
        if staged.tickets > 0 {
            let one_less = worth(staged.tickets - 1, &ev_wei) + existing;
            assert!(one_less < wanted);
        }
        let new = i64::try_from(staged.tickets).expect("few tickets") * ev;
        let (how, double) = match how % 3 {
            0 => (Completion::NotSent, self.double),
            1 => (Completion::Spent, 0),
            _ => (Completion::Debited(fee_wei), self.double + new - fee),
        };
        self.balance.complete(staged, how);
        self.double = double;
    }

    fn check(&self) {
        assert_eq!(self.balances.len(), self.accounts.len());
        for n in 0..10 {
            let account = self.accounts.get(&key(n));
            let amount = account.map(|account| wei(account.amount));
            assert_eq!(self.balances.read(&id(n)), amount.as_ref());
            let price = account.and_then(|account| Price::new(account.price?, 1));
            assert_eq!(self.balances.price(&id(n)), price);
        }
        assert_eq!(*self.balance.amount(), wei(self.double));
        assert_eq!(self.windows.len(), self.seen.len());
    }
}

/// The accounts that [`id`] tells apart.
fn key(n: u8) -> u8 {
    n % 2 + n % 5 / 2 * 2
}

/// Plays what the bytes say.
///
/// # Panics
/// If an invariant breaks.
pub fn run(data: &[u8]) {
    let mut player = Player::default();
    Reel::new(data).play(Step::read, |step| player.play(step));
}

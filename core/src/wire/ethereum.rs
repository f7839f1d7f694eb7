//! Questions to the chain and its answers: contract calls as bytes, blocks as JSON (payments spec 15).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use num_bigint::{BigInt, BigUint};
use num_traits::{Signed as _, ToPrimitive as _};

use super::error::WireError;
use super::json::Fields;
use crate::chain::SenderInfo;
use crate::money::Wei;
use crate::sign::{Address, keccak};

/// The chain that the contracts are on: Arbitrum One.
pub const CHAIN_ID: u64 = 42_161;

/// Knows all other contracts by name. A constant of the reference.
pub const CONTROLLER: Address = Address([
    0xd8, 0xe8, 0x32, 0x85, 0x01, 0xe9, 0x64, 0x5d, 0x16, 0xcf, 0x49, 0x53, 0x9e, 0xfc, 0x04, 0xf7,
    0x34, 0x60, 0x6e, 0xe4,
]);

/// The registry of orchestrators for AI work: a constant, the controller does not know it.
pub const AI_SERVICE_REGISTRY: Address = Address([
    0x04, 0xc0, 0xb2, 0x49, 0x74, 0x01, 0x75, 0x99, 0x9e, 0x5b, 0xf5, 0xc9, 0xac, 0x1d, 0xa9, 0x24,
    0x31, 0xef, 0x34, 0xc5,
]);

/// A function, by its signature: what a call begins with.
#[must_use]
pub fn selector(signature: &str) -> [u8; 4] {
    let hash = keccak(&[signature.as_bytes()]);
    [hash[0], hash[1], hash[2], hash[3]]
}

/// An event, by its signature: its first topic.
#[must_use]
pub fn topic(signature: &str) -> [u8; 32] {
    keccak(&[signature.as_bytes()])
}

/// The identifier by which the controller knows a contract.
#[must_use]
pub fn contract_id(name: &str) -> [u8; 32] {
    keccak(&[name.as_bytes()])
}

/// A call of a function whose arguments all have a fixed size.
#[must_use]
pub fn call(signature: &str, arguments: &[[u8; 32]]) -> Vec<u8> {
    let mut data = selector(signature).to_vec();
    for argument in arguments {
        data.extend_from_slice(argument);
    }
    data
}

/// An address as an argument.
#[must_use]
pub fn address_word(address: Address) -> [u8; 32] {
    let mut word = [0; 32];
    word[12..].copy_from_slice(&address.0);
    word
}

/// Asks the controller where a contract is.
#[must_use]
pub fn get_contract(name: &str) -> Vec<u8> {
    call("getContract(bytes32)", &[contract_id(name)])
}

/// Asks the ticket broker what a payer has.
#[must_use]
pub fn get_sender_info(payer: Address) -> Vec<u8> {
    call("getSenderInfo(address)", &[address_word(payer)])
}

const WHAT: &str = "the chain's answer";

fn word(data: &[u8], index: usize) -> Result<[u8; 32], WireError> {
    let start = index.saturating_mul(32);
    data.get(start..start.saturating_add(32))
        .and_then(|word| word.try_into().ok())
        .ok_or_else(|| WireError::new(WHAT, format!("it has no word {index}")))
}

/// A whole number in an answer.
///
/// # Errors
/// If the answer is too short.
pub fn read_uint(data: &[u8], index: usize) -> Result<BigUint, WireError> {
    Ok(BigUint::from_bytes_be(&word(data, index)?))
}

/// A number of 64 bits in an answer.
///
/// # Errors
/// If the answer is too short, or the number too long.
pub fn read_u64(data: &[u8], index: usize) -> Result<u64, WireError> {
    read_uint(data, index)?
        .to_u64()
        .ok_or_else(|| WireError::new(WHAT, format!("word {index} has more than 64 bits")))
}

/// A hash in an answer.
///
/// # Errors
/// If the answer is too short.
pub fn read_hash(data: &[u8], index: usize) -> Result<[u8; 32], WireError> {
    word(data, index)
}

/// An address in an answer.
///
/// # Errors
/// If the answer is too short, or the word is no address.
pub fn read_address(data: &[u8], index: usize) -> Result<Address, WireError> {
    let word = word(data, index)?;
    if word[..12] != [0; 12] {
        return Err(WireError::new(WHAT, format!("word {index} is no address")));
    }
    Ok(Address::from_wire(&word))
}

/// The answer of a controller to [`get_contract`].
///
/// # Errors
/// If there is no controller, or it does not know the contract.
pub fn read_contract(data: &[u8], controller: Address, name: &str) -> Result<Address, WireError> {
    let bad = |why: String| WireError::new("the controller", why);
    if data.is_empty() {
        // What a call to an address without code comes back with.
        return Err(bad(format!("there is no contract at {controller}")));
    }
    match read_address(data, 0) {
        Ok(address) if !address.is_zero() => Ok(address),
        Ok(_) => Err(bad(format!("{controller} does not know {name}"))),
        Err(_) => Err(bad(format!("{controller} is another contract"))),
    }
}

/// The answer to [`get_sender_info`].
///
/// # Errors
/// If it is too short, or a round has more than 64 bits.
pub fn read_sender_info(data: &[u8]) -> Result<SenderInfo, WireError> {
    Ok(SenderInfo {
        deposit: Wei::from(read_uint(data, 0)?),
        withdraw_round: read_u64(data, 1)?,
        reserve_remaining: Wei::from(read_uint(data, 2)?),
        reserve_claimed: Wei::from(read_uint(data, 3)?),
        ..SenderInfo::default()
    })
}

/// A round of a price feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedRound {
    /// The number of the round.
    pub round: BigUint,
    /// The price; `None` if it is not above zero.
    pub answer: Option<BigInt>,
    /// When the price was got, in Unix seconds.
    pub updated_at: u64,
    /// The round in which it was.
    pub answered_in: BigUint,
}

/// The answer of a price feed to `latestRoundData()`.
///
/// # Errors
/// If it is too short, or the time has more than 64 bits.
pub fn read_feed_round(data: &[u8]) -> Result<FeedRound, WireError> {
    let answer = BigInt::from_signed_bytes_be(&word(data, 1)?);
    Ok(FeedRound {
        round: read_uint(data, 0)?,
        answer: Some(answer).filter(BigInt::is_positive),
        updated_at: read_u64(data, 3)?,
        answered_in: read_uint(data, 4)?,
    })
}

/// A text that is an answer's only value: a service URI.
///
/// # Errors
/// If it is cut off, too long, or not UTF-8.
pub fn read_text(data: &[u8]) -> Result<String, WireError> {
    let bad = |why: &str| WireError::new(WHAT, why);
    let at = usize::try_from(read_u64(data, 0)?).map_err(|_| bad("a far offset"))?;
    let rest = data.get(at..).ok_or_else(|| bad("a far offset"))?;
    let length = usize::try_from(read_u64(rest, 0)?).map_err(|_| bad("a long text"))?;
    let text = length
        .checked_add(32)
        .and_then(|end| rest.get(32..end))
        .ok_or_else(|| bad("a text that is cut off"))?;
    String::from_utf8(text.to_vec()).map_err(|_| bad("a text that is not UTF-8"))
}

/// The part of a block that payments need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The block's number.
    pub number: u64,
    /// The L1 block that it belongs to; itself on L1.
    pub l1_block: u64,
}

impl Block {
    /// Reads a block of `eth_getBlockByNumber`.
    ///
    /// # Errors
    /// If it is not the JSON object expected.
    pub fn from_json(body: &[u8]) -> Result<Self, WireError> {
        let bad = |why: String| WireError::new("block", why);
        let fields = Fields::only(body).map_err(bad)?;
        let number = |name: &str| {
            let text = fields.text(name).map_err(bad)?;
            if text.is_empty() {
                return Ok(None);
            }
            text.strip_prefix("0x")
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                .map(Some)
                .ok_or_else(|| bad(format!("{name} is no number")))
        };
        let own = number("number")?.ok_or_else(|| bad("it has no number".into()))?;
        Ok(Self {
            number: own,
            l1_block: number("l1BlockNumber")?.unwrap_or(own),
        })
    }
}

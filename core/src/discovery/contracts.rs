//! The few contract functions that discovery reads, and the events that say that it is time to read again.
//! The coding is alloy's.

use alloc::string::String;
use alloc::vec::Vec;

use alloy_sol_types::{SolCall, SolEvent};

use crate::sign::{Address, keccak};
use crate::wire::WireError;

#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    unreachable_pub,
    reason = "generated"
)]
mod sol {
    alloy_sol_types::sol! {
        function getContract(bytes32 id) external view returns (address);
        function getFirstTranscoderInPool() external view returns (address);
        function getNextTranscoderInPool(address transcoder) external view returns (address);
        function getTranscoderPoolSize() external view returns (uint256);
        function isActiveTranscoder(address transcoder) external view returns (bool);
        function transcoderTotalStake(address transcoder) external view returns (uint256);
        function getServiceURI(address addr) external view returns (string);
        function lastInitializedRound() external view returns (uint256);

        event ServiceURIUpdate(address indexed addr, string serviceURI);
        event TranscoderActivated(address indexed transcoder, uint256 activationRound);
        event TranscoderDeactivated(address indexed transcoder, uint256 deactivationRound);
    }
}

/// Where the addresses of all other contracts are read, on Arbitrum One.
pub const CONTROLLER: Address = Address(hex_literal(*b"D8E8328501E9645d16Cf49539efC04f734606ee4"));
/// The registry of AI services; the controller does not know it (handshake spec 7.2).
pub const AI_SERVICE_REGISTRY: Address =
    Address(hex_literal(*b"04C0b249740175999E5BF5c9ac1dA92431EF34C5"));

/// A contract that the controller knows by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contract {
    /// The contract that lists the orchestrators in the pool and their stake.
    BondingManager,
    /// Where who serves video.
    ServiceRegistry,
    /// The rounds.
    RoundsManager,
}

impl Contract {
    const fn name(self) -> &'static str {
        match self {
            Self::BondingManager => "BondingManager",
            Self::ServiceRegistry => "ServiceRegistry",
            Self::RoundsManager => "RoundsManager",
        }
    }
}

/// Asks the controller for a contract's address.
#[must_use]
pub fn get_contract(which: Contract) -> Vec<u8> {
    let id = keccak(&[which.name().as_bytes()]).into();
    sol::getContractCall { id }.abi_encode()
}

/// Asks for the orchestrator with the most stake.
#[must_use]
pub fn get_first_in_pool() -> Vec<u8> {
    sol::getFirstTranscoderInPoolCall {}.abi_encode()
}

/// Asks for the orchestrator that follows in stake.
#[must_use]
pub fn get_next_in_pool(after: Address) -> Vec<u8> {
    let transcoder = after.0.into();
    sol::getNextTranscoderInPoolCall { transcoder }.abi_encode()
}

/// Asks how many are in the pool.
#[must_use]
pub fn get_pool_size() -> Vec<u8> {
    sol::getTranscoderPoolSizeCall {}.abi_encode()
}

/// Asks whether one is active in the current round.
#[must_use]
pub fn is_active(who: Address) -> Vec<u8> {
    let transcoder = who.0.into();
    sol::isActiveTranscoderCall { transcoder }.abi_encode()
}

/// Asks for one's stake, delegated stake included.
#[must_use]
pub fn total_stake(of: Address) -> Vec<u8> {
    let transcoder = of.0.into();
    sol::transcoderTotalStakeCall { transcoder }.abi_encode()
}

/// Asks a registry where one is.
#[must_use]
pub fn get_service_uri(of: Address) -> Vec<u8> {
    let addr = of.0.into();
    sol::getServiceURICall { addr }.abi_encode()
}

/// Asks for the current round.
#[must_use]
pub fn last_round() -> Vec<u8> {
    sol::lastInitializedRoundCall {}.abi_encode()
}

/// Reads the answer to a question for an address.
///
/// # Errors
/// If the data is not an address.
pub fn read_address(data: &[u8]) -> Result<Address, WireError> {
    sol::getContractCall::abi_decode_returns(data)
        .map(|address| Address(address.into_array()))
        .map_err(|err| bad(&err))
}

/// Reads the answer to a question for a text. Addresses that never registered have an empty one.
///
/// # Errors
/// If the data is not a text.
pub fn read_text(data: &[u8]) -> Result<String, WireError> {
    sol::getServiceURICall::abi_decode_returns(data).map_err(|err| bad(&err))
}

/// Reads the answer to a yes-or-no question.
///
/// # Errors
/// If it is neither.
pub fn read_bool(data: &[u8]) -> Result<bool, WireError> {
    sol::isActiveTranscoderCall::abi_decode_returns(data).map_err(|err| bad(&err))
}

/// Reads the answer to a question for a number, as 32 big-endian bytes.
///
/// # Errors
/// If the data is not a number.
pub fn read_number(data: &[u8]) -> Result<[u8; 32], WireError> {
    sol::transcoderTotalStakeCall::abi_decode_returns(data)
        .map(|number| number.to_be_bytes())
        .map_err(|err| bad(&err))
}

/// A stake of 10^-18 tokens in hundred-thousandths of a token, cut; the largest number if it is larger.
#[must_use]
pub fn fixed_point(stake: &[u8; 32]) -> u64 {
    let units = num_bigint::BigUint::from_bytes_be(stake) / 10_000_000_000_000_u64;
    u64::try_from(units).unwrap_or(u64::MAX)
}

/// The topics of events after which the pool or the URIs may read differently.
#[must_use]
pub const fn topics() -> [[u8; 32]; 3] {
    [
        sol::ServiceURIUpdate::SIGNATURE_HASH.0,
        sol::TranscoderActivated::SIGNATURE_HASH.0,
        sol::TranscoderDeactivated::SIGNATURE_HASH.0,
    ]
}

fn bad(err: &alloy_sol_types::Error) -> WireError {
    use alloc::string::ToString as _;
    WireError::new("the contract's answer", err.to_string())
}

/// Twenty bytes from forty hex digits, at compile time.
const fn hex_literal(digits: [u8; 40]) -> [u8; 20] {
    const fn nibble(digit: u8) -> u8 {
        match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            b'A'..=b'F' => digit - b'A' + 10,
            _ => panic!("not a hex digit"),
        }
    }
    let mut bytes = [0; 20];
    let mut at = 0;
    while at < 20 {
        bytes[at] = nibble(digits[2 * at]) << 4 | nibble(digits[2 * at + 1]);
        at += 1;
    }
    bytes
}

//! What a block looks like in memory: the public Blocks ABI, as clang emits it.

use std::ffi::{c_int, c_ulong, c_void};
use std::sync::atomic::AtomicI32;

/// References of a block on the heap, in steps of [`ONE_REFERENCE`]; the lowest bit says that it is being disposed of.
pub const REFERENCES: i32 = 0xfffe;
/// One reference.
pub const ONE_REFERENCE: i32 = 2;
/// The block is on the heap.
pub const NEEDS_FREE: i32 = 1 << 24;
/// Its descriptor has helpers that copy and dispose of what it captured.
pub const HAS_COPY_DISPOSE: i32 = 1 << 25;
/// It captured nothing, and is never copied.
pub const IS_GLOBAL: i32 = 1 << 28;
/// A captured object.
pub const FIELD_IS_OBJECT: c_int = 3;
/// A captured block.
pub const FIELD_IS_BLOCK: c_int = 7;
/// A captured `__block` variable.
pub const FIELD_IS_BYREF: c_int = 8;
/// A weak one.
pub const FIELD_IS_WEAK: c_int = 16;
/// What helpers of a `__block` variable say about what it holds.
pub const BYREF_CALLER: c_int = 128;

/// A block: this head, then what it captured.
#[repr(C)]
#[derive(Debug)]
pub struct Block {
    /// The address of one of the `_NSConcrete...Block` symbols.
    pub isa: *const c_void,
    /// References and properties.
    pub flags: AtomicI32,
    /// Nothing.
    pub reserved: c_int,
    /// The function; its first argument is the block.
    pub invoke: *const c_void,
    /// Size and helpers.
    pub descriptor: *const Descriptor,
}

/// What is the same for all blocks of one expression.
#[repr(C)]
#[derive(Debug)]
pub struct Descriptor {
    /// Nothing.
    pub reserved: c_ulong,
    /// Bytes of the block, captures included.
    pub size: c_ulong,
}

/// A descriptor of a block with [`HAS_COPY_DISPOSE`].
#[repr(C)]
#[derive(Debug)]
pub struct DescriptorWithHelpers {
    /// As without helpers.
    pub plain: Descriptor,
    /// Copies what the second block captured into the first.
    pub copy: Option<unsafe extern "C" fn(*mut c_void, *const c_void)>,
    /// Disposes of what the block captured.
    pub dispose: Option<unsafe extern "C" fn(*const c_void)>,
}

/// A `__block` variable: this head, then helpers and layout if the flags say so, then the value.
#[repr(C)]
#[derive(Debug)]
pub struct Byref {
    /// Nothing.
    pub isa: *const c_void,
    /// Where the variable is now: on the stack it points at itself, later at the heap.
    pub forwarding: *mut Self,
    /// References and properties.
    pub flags: AtomicI32,
    /// Bytes of the variable with this head.
    pub size: u32,
}

/// What follows [`Byref`] with [`HAS_COPY_DISPOSE`].
#[repr(C)]
#[derive(Debug)]
pub struct ByrefWithHelpers {
    /// The head.
    pub plain: Byref,
    /// Moves the value of the second variable to the first.
    pub keep: Option<unsafe extern "C" fn(*mut Byref, *mut Byref)>,
    /// Disposes of the value.
    pub destroy: Option<unsafe extern "C" fn(*mut Byref)>,
}

#[cfg(test)]
mod tests {
    use super::{Block, Byref, ByrefWithHelpers, Descriptor, DescriptorWithHelpers};
    use std::mem::{offset_of, size_of};

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn layouts_are_those_of_the_abi() {
        assert_eq!(size_of::<Block>(), 32);
        assert_eq!(offset_of!(Block, flags), 8);
        assert_eq!(offset_of!(Block, invoke), 16);
        assert_eq!(offset_of!(Block, descriptor), 24);
        assert_eq!(size_of::<Descriptor>(), 16);
        assert_eq!(offset_of!(DescriptorWithHelpers, copy), 16);
        assert_eq!(offset_of!(DescriptorWithHelpers, dispose), 24);
        assert_eq!(size_of::<Byref>(), 24);
        assert_eq!(offset_of!(Byref, flags), 16);
        assert_eq!(offset_of!(ByrefWithHelpers, keep), 24);
    }
}

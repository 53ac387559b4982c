//! The caller's pointers, and all the `unsafe` of this crate.
//!
//! C promises, by NVML's documentation, that a pointer argument is null or points to memory of the
//! documented type and length. These types are that promise: they have the form of a pointer, so they stand
//! in the signatures of `extern "C"` functions, and only such a call makes one. Null and misaligned pointers
//! are an `INVALID_ARGUMENT`.

use std::ffi::{CStr, c_char, c_uint};

use super::Code;

/// A pointer through which the caller wants an answer, or gives and wants one.
#[derive(Debug)]
#[repr(transparent)]
pub struct Out<T>(*mut T);

/// A text from the caller, ended by a zero byte.
#[derive(Debug)]
#[repr(transparent)]
pub struct TextIn(*const c_char);

/// Room for a text; its length comes in an argument of its own.
#[derive(Debug)]
#[repr(transparent)]
pub struct TextOut(*mut c_char);

/// The longest text read from a caller, in bytes: NVML's own longest identifier has 96.
const TEXT_MAX_BYTES: usize = 256;

impl<T: Copy> Out<T> {
    pub(crate) fn is_null(&self) -> bool {
        self.0.is_null()
    }

    /// Writes the answer.
    pub(crate) fn put(&self, value: T) -> Result<(), Code> {
        let pointer = self.usable()?;
        // SAFETY: not null and aligned, checked; points to a T that the caller lets us write (module docs).
        unsafe { pointer.write(value) };
        Ok(())
    }

    /// Reads what the caller put there. Only for types of plain numbers: any bytes are a value.
    pub(crate) fn get(&self) -> Result<T, Code> {
        let pointer = self.usable()?;
        // SAFETY: not null and aligned, checked; points to a T that the caller has initialized (module docs).
        Ok(unsafe { pointer.read() })
    }

    /// Writes an array. The caller has room for `values`: compare lengths first.
    pub(crate) fn put_all(&self, values: &[T]) -> Result<(), Code> {
        let pointer = self.usable()?;
        for (at, value) in values.iter().enumerate() {
            // SAFETY: as in `put`; within the array that the caller has room for (checked where its length
            // is an argument; the documented most, which `values` never exceeds, where it is not).
            unsafe { pointer.add(at).write(*value) };
        }
        Ok(())
    }

    /// One of an array.
    pub(crate) fn at(&self, index: usize) -> Self {
        if self.0.is_null() { Self(self.0) } else { Self(self.0.wrapping_add(index)) }
    }

    /// The same memory as another type: for structs whose first field says which version they are.
    pub(crate) fn cast<U>(&self) -> Out<U> {
        Out(self.0.cast())
    }

    fn usable(&self) -> Result<*mut T, Code> {
        if self.0.is_null() || !self.0.is_aligned() { Err(Code::INVALID_ARGUMENT) } else { Ok(self.0) }
    }
}

impl TextIn {
    /// The text; what is not UTF-8, or absurdly long, is no identifier of ours.
    pub(crate) fn get(&self) -> Result<&str, Code> {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: not null, checked; a text that ends with a zero byte and stays during the call (module docs).
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().ok().filter(|text| text.len() <= TEXT_MAX_BYTES).ok_or(Code::INVALID_ARGUMENT)
    }
}

impl TextOut {
    /// Writes a text and its zero byte, all or nothing.
    pub(crate) fn put(&self, text: &str, length: c_uint) -> Result<(), Code> {
        if self.0.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        let bytes = chars(text);
        if usize::try_from(length).is_ok_and(|length| bytes.len() > length) {
            return Err(Code::INSUFFICIENT_SIZE);
        }
        for (at, byte) in bytes.into_iter().enumerate() {
            // SAFETY: not null, checked; the caller has room for `length` characters, and these are no more.
            unsafe { self.0.add(at).write(byte) };
        }
        Ok(())
    }
}

/// A text as C characters with its zero byte.
pub(crate) fn chars(text: &str) -> Vec<c_char> {
    text.bytes().chain([0]).map(|byte| c_char::from_ne_bytes([byte])).collect()
}

/// A text in an array of C characters, cut to fit, zero to the end.
pub(crate) fn char_array<const N: usize>(text: &str) -> [c_char; N] {
    let mut array = [0; N];
    for (slot, byte) in array.iter_mut().take(N.saturating_sub(1)).zip(text.bytes()) {
        *slot = c_char::from_ne_bytes([byte]);
    }
    array
}

/// NVML's `NVML_STRUCT_VERSION`: the struct's size, and its version in the highest byte.
pub(crate) const fn struct_version<T>(version: u32) -> u32 {
    // A struct of NVML is a few hundred bytes at most.
    size_of::<T>() as u32 | version << 24
}

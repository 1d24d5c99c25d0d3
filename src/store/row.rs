//! How rows are written: as JSON, by a serializer that says it writes for machines. So a noun has one
//! serde form for both: a moment is an integer of milliseconds in a row and RFC 3339 on the wire, an
//! amount an integer of nano-units and a decimal. Readers take a moment in either form: a buffered value
//! does not say where it comes from.

use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use crate::model;

/// Writes a row's JSON, private members included.
pub(super) fn write<T: Serialize + ?Sized>(out: &mut Vec<u8>, row: &T) -> serde_json::Result<()> {
    model::row(|| row.serialize(ForRows(&mut serde_json::Serializer::new(out))))
}

/// A serializer for machines: all else is the inner one's.
struct ForRows<S>(S);

/// A value that goes to such a serializer.
struct Part<'a, T: ?Sized>(&'a T);

impl<T: Serialize + ?Sized> Serialize for Part<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(ForRows(serializer))
    }
}

macro_rules! plain {
    ($($method:ident: $type:ty,)*) => {
        $(fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.0.$method(value)
        })*
    };
}

impl<S: Serializer> Serializer for ForRows<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = ForRows<S::SerializeSeq>;
    type SerializeTuple = ForRows<S::SerializeTuple>;
    type SerializeTupleStruct = ForRows<S::SerializeTupleStruct>;
    type SerializeTupleVariant = ForRows<S::SerializeTupleVariant>;
    type SerializeMap = ForRows<S::SerializeMap>;
    type SerializeStruct = ForRows<S::SerializeStruct>;
    type SerializeStructVariant = ForRows<S::SerializeStructVariant>;

    plain! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128,
        serialize_f32: f32,
        serialize_f64: f64,
        serialize_char: char,
        serialize_str: &str,
        serialize_bytes: &[u8],
        serialize_unit_struct: &'static str,
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.0.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.serialize_some(&Part(value))
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.0.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_struct(name, &Part(value))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let value = Part(value);
        self.0
            .serialize_newtype_variant(name, index, variant, &value)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.0.serialize_seq(length).map(ForRows)
    }

    fn serialize_tuple(self, length: usize) -> Result<Self::SerializeTuple, S::Error> {
        self.0.serialize_tuple(length).map(ForRows)
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.0.serialize_tuple_struct(name, length).map(ForRows)
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        let begun = self.0.serialize_tuple_variant(name, index, variant, length);
        begun.map(ForRows)
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.0.serialize_map(length).map(ForRows)
    }

    fn serialize_struct(
        self,
        name: &'static str,
        length: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        self.0.serialize_struct(name, length).map(ForRows)
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        let begun = self
            .0
            .serialize_struct_variant(name, index, variant, length);
        begun.map(ForRows)
    }
}

/// A compound hands each of its parts on as one for rows.
macro_rules! compound {
    ($($trait:ident { $($method:ident($($key:ident: $key_type:ty)?)),* })*) => {
        $(impl<S: $trait> $trait for ForRows<S> {
            type Ok = S::Ok;
            type Error = S::Error;

            $(fn $method<T: Serialize + ?Sized>(
                &mut self,
                $($key: $key_type,)?
                value: &T,
            ) -> Result<(), S::Error> {
                self.0.$method($($key,)? &Part(value))
            })*

            fn end(self) -> Result<S::Ok, S::Error> {
                self.0.end()
            }
        })*
    };
}

compound! {
    SerializeSeq { serialize_element() }
    SerializeTuple { serialize_element() }
    SerializeTupleStruct { serialize_field() }
    SerializeTupleVariant { serialize_field() }
    SerializeMap { serialize_key(), serialize_value() }
    SerializeStruct { serialize_field(key: &'static str) }
    SerializeStructVariant { serialize_field(key: &'static str) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::value::RawValue;

    use super::*;

    /// Says for whom it is written.
    struct Reader;

    impl Serialize for Reader {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let whom = match serializer.is_human_readable() {
                true => "human",
                false => "row",
            };
            serializer.serialize_str(whom)
        }
    }

    #[derive(serde::Serialize)]
    enum Any {
        New(Reader),
        Tuple(Reader, u8),
        Fields { of: Reader },
    }

    #[derive(serde::Serialize)]
    struct Inner {
        flat: Reader,
    }

    #[derive(serde::Serialize)]
    struct Outer {
        some: Option<Reader>,
        list: Vec<(Reader, u8)>,
        map: BTreeMap<&'static str, Reader>,
        any: [Any; 3],
        #[serde(flatten)]
        inner: Inner,
        raw: Box<RawValue>,
    }

    #[test]
    fn a_value_of_any_shape_knows_that_it_is_in_a_row() {
        let outer = Outer {
            some: Some(Reader),
            list: vec![(Reader, 1)],
            map: [("a", Reader)].into(),
            any: [
                Any::New(Reader),
                Any::Tuple(Reader, 1),
                Any::Fields { of: Reader },
            ],
            inner: Inner { flat: Reader },
            raw: RawValue::from_string("1.50".to_owned()).unwrap(),
        };
        let mut row = Vec::new();
        write(&mut row, &outer).unwrap();
        assert_eq!(
            String::from_utf8(row).unwrap(),
            r#"{"some":"row","list":[["row",1]],"map":{"a":"row"},"any":[{"New":"row"},{"Tuple":["row",1]},{"Fields":{"of":"row"}}],"flat":"row","raw":1.50}"#
        );
        let wire = serde_json::to_string(&outer).unwrap();
        assert!(!wire.contains("row") && wire.contains("human"), "{wire}");
    }
}

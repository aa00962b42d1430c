//! Writes the impl of `EventData` for an enum of a domain's events.

use proc_macro2::TokenStream;
use quote::quote;
use syn::spanned::Spanned;
use syn::{
    Attribute, DataEnum, DeriveInput, Error, Fields, Ident, Meta, Result, Type, parse_quote,
};

use crate::attribute::{self, Errors};

/// The impl of `EventData` for an enum each of whose variants holds the data of one event type.
///
/// # Errors
///
/// Everything that is wrong with it, combined in one.
pub(crate) fn derive(input: &DeriveInput, data: &DataEnum) -> Result<TokenStream> {
    let mut errors = Errors::default();
    let krate = attribute::krate_of_enum(&input.attrs, &mut errors);
    let krate = krate.unwrap_or_else(|| parse_quote!(::polybus));
    refuse_generics(input, &mut errors);
    if data.variants.is_empty() {
        let what = "an enum of events needs a variant for each: `Created(UserCreated)`";
        errors.push(Error::new(input.ident.span(), what));
    }
    require_untagged(input, &mut errors);
    let variants: Vec<_> = data
        .variants
        .iter()
        .filter_map(|variant| {
            let held = held(&input.ident, &variant.ident, &variant.fields);
            Some((&variant.ident, errors.take(held)?))
        })
        .collect();
    errors.finish()?;

    let name = &input.ident;
    let (idents, types): (Vec<&Ident>, Vec<&Type>) = variants.into_iter().unzip();
    let private = quote!(#krate::__private);
    let of_variants = of_variants(&private, &idents);
    let contract = contract(&private, &idents, &types);
    Ok(quote! {
        #[automatically_derived]
        impl #private::EventData for #name {
            const TYPES: &'static [#private::TypeInfo] = &#private::distinct([
                #(#private::only(<#types as #private::EventData>::TYPES)),*
            ]);

            fn type_info(&self) -> &'static #private::TypeInfo {
                match self {
                    #(Self::#idents(data) => #private::EventData::type_info(data),)*
                }
            }

            #of_variants

            #contract

            fn from_event(event: &#private::Event) -> #private::Result<Self>
            where
                Self: #private::DeserializeOwned,
            {
                #(
                    if #private::is_of::<Self, #types>(event) {
                        return #private::EventData::from_event(event).map(Self::#idents);
                    }
                )*
                ::core::result::Result::Err(#private::of_no_variant::<Self>(event))
            }
        }
    })
}

/// The methods that each variant's data have themselves.
fn of_variants(private: &TokenStream, idents: &[&Ident]) -> TokenStream {
    quote! {
        fn key(&self) -> ::core::option::Option<#private::Text> {
            match self {
                #(Self::#idents(data) => #private::EventData::key(data),)*
            }
        }

        fn subject(&self) -> ::core::option::Option<#private::Text> {
            match self {
                #(Self::#idents(data) => #private::EventData::subject(data),)*
            }
        }

        fn encode_data(
            &self,
            codec: #private::Codec,
        ) -> #private::Result<#private::Bytes>
        where
            Self: #private::Serialize,
        {
            match self {
                #(Self::#idents(data) => #private::EventData::encode_data(data, codec),)*
            }
        }
    }
}

/// What the types of the variants say of their data.
fn contract(private: &TokenStream, idents: &[&Ident], types: &[&Type]) -> TokenStream {
    quote! {
        fn schema_of(name: &str) -> ::core::option::Option<#private::Value> {
            #(
                if #private::has_type::<#types>(name) {
                    return <#types as #private::EventData>::schema_of(name);
                }
            )*
            ::core::option::Option::None
        }

        fn data_schema_of(
            name: &str,
            codec: #private::Codec,
        ) -> ::core::option::Option<&'static #private::DataSchema> {
            #(
                if #private::has_type::<#types>(name) {
                    return <#types as #private::EventData>::data_schema_of(name, codec);
                }
            )*
            ::core::option::Option::None
        }

        fn schemas() -> ::std::vec::Vec<#private::TypeSchema> {
            let mut schemas = ::std::vec::Vec::new();
            #(schemas.extend(<#types as #private::EventData>::schemas());)*
            schemas
        }

        fn faults(&self) -> ::std::vec::Vec<#private::Fault> {
            match self {
                #(Self::#idents(data) => #private::EventData::faults(data),)*
            }
        }
    }
}

fn refuse_generics(input: &DeriveInput, errors: &mut Errors) {
    if let Some(parameter) = input.generics.params.first() {
        let what = "an enum of events has no parameters: its event types are known where it stands";
        errors.push(Error::new(parameter.span(), what));
    }
}

/// The one type that a variant holds.
fn held<'a>(owner: &Ident, variant: &Ident, fields: &'a Fields) -> Result<&'a Type> {
    if let Fields::Unnamed(fields) = fields
        && fields.unnamed.len() == 1
    {
        return Ok(&fields.unnamed[0].ty);
    }
    Err(Error::new(
        variant.span(),
        format!(
            "`{owner}::{variant}` has to hold one struct that derives `Event`: `{variant}(User{variant})`"
        ),
    ))
}

/// With a tag the data of an event would be another than that of its struct.
fn require_untagged(input: &DeriveInput, errors: &mut Errors) {
    if !input.attrs.iter().any(is_untagged) {
        let what = "the data of an event are those of its variant alone: add `#[serde(untagged)]`; which \
                    variant it is follows from the event type";
        errors.push(Error::new(input.ident.span(), what));
    }
}

fn is_untagged(attribute: &Attribute) -> bool {
    let Meta::List(list) = &attribute.meta else {
        return false;
    };
    let mut found = false;
    // What else stands there is serde's to judge.
    let _ = list.parse_nested_meta(|meta| {
        found |= meta.path.is_ident("untagged");
        Ok(())
    });
    list.path.is_ident("serde") && found
}

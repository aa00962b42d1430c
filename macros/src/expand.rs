//! Writes the impl of `EventData`.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Data, DataStruct, DeriveInput, Error, Generics, LitStr, Path, Result, Type, WhereClause,
    parse_quote,
};

use crate::attribute::{self, Errors, Settings};
use crate::field::FieldPath;
use crate::variants;

/// The version of an event type that gives none.
const DEFAULT_VERSION: &str = "1.0.0";

/// The impl of `EventData` for a struct.
///
/// # Errors
///
/// Everything that is wrong with it, combined in one.
pub(crate) fn derive(input: &DeriveInput) -> Result<TokenStream> {
    let data = match &input.data {
        Data::Struct(data) => data,
        Data::Enum(data) => return variants::derive(input, data),
        Data::Union(data) => {
            return Err(Error::new(
                data.union_token.span,
                "`#[derive(Event)]` takes a struct or an enum: a union can't be written as the data of an event",
            ));
        }
    };
    let mut errors = Errors::default();
    refuse_attributes_of_fields(data, &mut errors);
    let settings = Settings::parse(&input.ident, &input.attrs, &mut errors);
    let krate = settings
        .krate
        .clone()
        .unwrap_or_else(|| parse_quote!(::polybus));

    let mut accessor = |method: &str, path: Option<FieldPath>| {
        let path = path?;
        let field = errors.take(path.resolve(&input.ident, &data.fields))?;
        Some(field_accessor(&krate, method, &field, path.span()))
    };
    let key = accessor("key", settings.key);
    let subject = accessor("subject", settings.subject);
    refuse_avro_of_many(input, settings.avro.is_some(), &mut errors);
    errors.finish()?;
    let from = settings.from.as_ref();
    let step = from
        .filter(|_| input.generics.params.is_empty())
        .map(|previous| assert_step(&krate, &input.ident, previous));
    let schemas = from.map(|previous| schemas(&krate, previous));
    let from = from.map(|previous| from_event(&krate, previous));
    let wire = wire(&krate, &input.ident, &settings.avro, &settings.protobuf);
    let schema = settings.schema.map(|span| schema_of(&krate, span));
    let faults = settings.garde.map(|span| faults(&krate, span));

    let version = settings
        .version
        .unwrap_or_else(|| LitStr::new(DEFAULT_VERSION, Span::call_site()));
    let (event_type, name) = (settings.event_type, &input.ident);
    let where_clause = where_clause(input);
    let (impl_generics, ty_generics, _) = input.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics #krate::__private::EventData for #name #ty_generics #where_clause {
            const TYPES: &'static [#krate::__private::TypeInfo] =
                &[#krate::__private::TypeInfo::new(#event_type, #version)];

            fn type_info(&self) -> &'static #krate::__private::TypeInfo {
                &<Self as #krate::__private::EventData>::TYPES[0]
            }

            #key
            #subject
            #schema
            #schemas
            #faults
            #from
            #wire
        }
        #step
    })
}

fn refuse_avro_of_many(input: &DeriveInput, has_avro: bool, errors: &mut Errors) {
    if has_avro && !input.generics.params.is_empty() {
        let what = "a type with parameters has no Avro schema of its own: take `avro` away, or the parameters";
        errors.push(Error::new(input.ident.span(), what));
    }
}

/// They would be ignored, which nobody who writes one expects.
fn refuse_attributes_of_fields(data: &DataStruct, errors: &mut Errors) {
    let attributes = data.fields.iter().flat_map(|field| &field.attrs);
    for attribute in attribute::of_event(attributes) {
        errors.push(Error::new(
            attribute.path().span(),
            "`#[event(..)]` stands on the struct and names the field: `#[event(key = user_id)]`",
        ));
    }
}

/// The method `key` or `subject`.
fn field_accessor(krate: &Path, method: &str, field: &TokenStream, span: Span) -> TokenStream {
    let method = syn::Ident::new(method, Span::call_site());
    // A field that can't be displayed is reported where the attribute names it.
    let span = Span::call_site().located_at(span);
    let text = quote_spanned!(span=> #krate::__private::Field(&#field).polybus_text());
    quote! {
        fn #method(&self) -> ::core::option::Option<#krate::__private::Text> {
            #[allow(unused_imports)] // An optional field needs it not.
            use #krate::__private::AnyField as _;
            #text
        }
    }
}

/// The check that a version before is one.
fn assert_step(krate: &Path, name: &syn::Ident, previous: &Type) -> TokenStream {
    let span = Span::call_site().located_at(previous.span());
    quote_spanned! {span=>
        const _: () = #krate::__private::assert_step(
            <#previous as #krate::__private::EventData>::TYPES,
            <#name as #krate::__private::EventData>::TYPES,
        );
    }
}

/// The method `schema_of`.
fn schema_of(krate: &Path, span: Span) -> TokenStream {
    // A type without a schema is reported where the attribute asks for one.
    let span = Span::call_site().located_at(span);
    let schema = quote_spanned!(span=> #krate::__private::schema_of::<Self>());
    quote! {
        fn schema_of(name: &str) -> ::core::option::Option<#krate::__private::Value> {
            if #krate::__private::has_type::<Self>(name) {
                ::core::option::Option::Some(#schema)
            } else {
                ::core::option::Option::None
            }
        }
    }
}

/// The method `schemas` of a type with a version before.
fn schemas(krate: &Path, previous: &Type) -> TokenStream {
    let private = quote!(#krate::__private);
    quote! {
        fn schemas() -> ::std::vec::Vec<#private::TypeSchema> {
            #private::with_previous::<Self, #previous>()
        }
    }
}

/// The method `faults`.
fn faults(krate: &Path, span: Span) -> TokenStream {
    let span = Span::call_site().located_at(span);
    let faults = quote_spanned!(span=> #krate::__private::faults_of(self));
    quote! {
        fn faults(&self) -> ::std::vec::Vec<#krate::__private::Fault> {
            #faults
        }
    }
}

/// The method `from_event` of a type with a version before.
fn from_event(krate: &Path, previous: &Type) -> TokenStream {
    let span = Span::call_site().located_at(previous.span());
    let decode = quote_spanned!(span=> #krate::__private::decode_from::<Self, #previous>(event));
    quote! {
        fn from_event(event: &#krate::__private::Event) -> #krate::__private::Result<Self>
        where
            Self: #krate::__private::DeserializeOwned,
        {
            #decode
        }
    }
}

/// The method `wire` of a type that has more than serde.
fn wire(
    krate: &Path,
    name: &syn::Ident,
    avro: &Option<Option<LitStr>>,
    protobuf: &Option<Option<LitStr>>,
) -> Option<TokenStream> {
    if avro.is_none() && protobuf.is_none() {
        return None;
    }
    let private = quote!(#krate::__private);
    let kept = |schema: TokenStream| {
        quote! {{
            static SCHEMA: #private::OnceLock<#private::DataSchema> = #private::OnceLock::new();
            SCHEMA.get_or_init(|| #schema)
        }}
    };
    let avro = avro.as_ref().map(|file| {
        let schema = kept(match file {
            Some(file) => quote! {
                #private::DataSchema::new(#private::SchemaFormat::Avro, include_str!(#file))
            },
            None => quote!(#private::derived_avro::<#name>()),
        });
        quote!(let wire = #private::with_avro! { wire.with_avro(#schema) };)
    });
    let protobuf = protobuf.as_ref().map(|file| {
        let schema = match file {
            Some(file) => {
                let (file, message) = file_and_message(file, name);
                let schema =
                    kept(quote!(#private::DataSchema::of_message(include_str!(#file), #message)));
                quote!(::core::option::Option::Some(#schema))
            }
            None => quote!(::core::option::Option::None),
        };
        // A type that is no message is reported where it stands.
        let span = Span::call_site().located_at(name.span());
        let message = quote_spanned!(span=> #private::protobuf::<Self>);
        quote!(let wire = #private::with_protobuf! { wire.with_protobuf(#message(#schema)) };)
    });
    Some(quote! {
        fn wire() -> #private::Wire<Self> {
            let wire = #private::Wire::serde();
            #avro
            #protobuf
            wire
        }
    })
}

/// `user.proto#Outer.UserCreated`; without a message it is the one of the struct's name.
fn file_and_message(file: &LitStr, name: &syn::Ident) -> (LitStr, String) {
    let text = file.value();
    match text.split_once('#') {
        Some((path, message)) => (LitStr::new(path, file.span()), message.to_owned()),
        None => (file.clone(), name.unraw().to_string()),
    }
}

/// The where-clause of the struct, and what the trait demands of it where that is not certain.
fn where_clause(input: &DeriveInput) -> Option<WhereClause> {
    let Generics { params, .. } = &input.generics;
    let mut generics = input.generics.clone();
    if !params.is_empty() {
        let name = &input.ident;
        let (_, ty_generics, _) = input.generics.split_for_impl();
        generics.make_where_clause().predicates.push(parse_quote!(
            #name #ty_generics: ::core::marker::Send + ::core::marker::Sync + 'static
        ));
    }
    generics.where_clause
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expansion(input: &DeriveInput) -> String {
        let tokens = derive(input).unwrap_or_else(|error| panic!("{error}"));
        tokens.to_string().replace(' ', "")
    }

    #[test]
    fn polybus_itself_is_where_things_are_unless_told_otherwise() {
        let default = expansion(&parse_quote! {
            #[event(type = "user.created")]
            struct UserCreated;
        });
        assert!(
            default.contains("impl::polybus::__private::EventDataforUserCreated"),
            "{default}"
        );
        let told = expansion(&parse_quote! {
            #[event(type = "user.created", crate = "my::bus")]
            struct UserCreated;
        });
        assert!(!told.contains("polybus::"), "{told}");
    }

    #[test]
    fn methods_are_written_only_for_what_is_given() {
        let neither = expansion(&parse_quote! {
            #[event(type = "user.created")]
            struct UserCreated { user_id: String }
        });
        assert!(
            !neither.contains("fnkey") && !neither.contains("fnsubject"),
            "{neither}"
        );
        let subject = expansion(&parse_quote! {
            #[event(type = "user.created", subject = user_id)]
            struct UserCreated { user_id: String }
        });
        assert!(
            !subject.contains("fnkey") && subject.contains("fnsubject"),
            "{subject}"
        );
    }

    #[test]
    fn bounds_are_added_only_where_they_are_not_certain() {
        let plain = expansion(&parse_quote! {
            #[event(type = "a")]
            struct A;
        });
        assert!(!plain.contains("where"), "{plain}");
        let generic = expansion(&parse_quote! {
            #[event(type = "a")]
            struct A<T> where T: Copy { value: T }
        });
        let expected = "whereT:Copy,A<T>:::core::marker::Send+::core::marker::Sync+'static";
        assert!(generic.contains(expected), "{generic}");
    }
}

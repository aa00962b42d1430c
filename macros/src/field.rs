//! Which field is the key or the subject.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Error, Fields, Ident, Index, LitFloat, LitInt, LitStr, Member, Result, Token};

/// The path to a field: `user_id`, `user.id`, `0`, `0.id`, or one of these in a string.
pub(crate) struct FieldPath {
    first: Member,
    rest: Vec<Member>,
}

impl Parse for FieldPath {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        if let Some(text) = input.parse::<Option<LitStr>>()? {
            return text.parse_with(parse_members);
        }
        parse_members(input)
    }
}

impl FieldPath {
    /// The expression of this field of `self`.
    ///
    /// # Errors
    ///
    /// If the struct has no such field. Fields of fields are left to the compiler.
    pub(crate) fn resolve(&self, owner: &Ident, fields: &Fields) -> Result<TokenStream> {
        let known = fields.members().find(|member| same(member, &self.first));
        let Some(known) = known else {
            return Err(self.not_found(owner, fields));
        };
        let first = at(known, self.first.span());
        let rest = &self.rest;
        Ok(quote!(self.#first #(.#rest)*))
    }

    /// Where it is written, for code that belongs to it.
    pub(crate) fn span(&self) -> Span {
        self.rest.last().unwrap_or(&self.first).span()
    }

    fn not_found(&self, owner: &Ident, fields: &Fields) -> Error {
        let names: Vec<_> = fields
            .members()
            .map(|member| format!("`{}`", member.to_token_stream()))
            .collect();
        let known = match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(", "),
        };
        let first = self.first.to_token_stream();
        Error::new(
            self.first.span(),
            format!("`{owner}` has no field `{first}`: it has {known}"),
        )
    }
}

/// Members divided by dots.
fn parse_members(input: ParseStream<'_>) -> Result<FieldPath> {
    let mut rest = parse_step(input)?;
    let first = rest.remove(0);
    while input.parse::<Option<Token![.]>>()?.is_some() {
        rest.extend(parse_step(input)?);
    }
    Ok(FieldPath { first, rest })
}

/// One member, or two: `0.1` is a single token. Never none.
fn parse_step(input: ParseStream<'_>) -> Result<Vec<Member>> {
    if let Some(indices) = input.parse::<Option<LitFloat>>()? {
        let digits = indices.to_string();
        return digits
            .split('.')
            .map(|digits| index(digits, indices.span()))
            .collect();
    }
    if let Some(digits) = input.parse::<Option<LitInt>>()? {
        return Ok(vec![index(&digits.to_string(), digits.span())?]);
    }
    let name = input.call(Ident::parse_any)?;
    Ok(vec![Member::Named(field_name(name)?)])
}

/// A keyword names a field in its raw spelling, which some have not.
fn field_name(name: Ident) -> Result<Ident> {
    if syn::parse2::<Ident>(name.to_token_stream()).is_ok() {
        return Ok(name);
    }
    let raw = format!("r#{name}");
    syn::parse_str::<Ident>(&raw)
        .map(|_| Ident::new_raw(&name.to_string(), name.span()))
        .map_err(|_| Error::new(name.span(), "expected the name of a field"))
}

fn index(digits: &str, span: Span) -> Result<Member> {
    let index = digits
        .parse()
        .map_err(|_| Error::new(span, "expected the index of a field"))?;
    Ok(Member::Unnamed(Index { index, span }))
}

/// Whether two members are the same field: `r#type` and `type` are.
fn same(left: &Member, right: &Member) -> bool {
    match (left, right) {
        (Member::Named(left), Member::Named(right)) => left.unraw() == right.unraw(),
        (Member::Unnamed(left), Member::Unnamed(right)) => left.index == right.index,
        _ => false,
    }
}

/// The same field, reported by the compiler where the path names it.
fn at(member: Member, span: Span) -> Member {
    match member {
        Member::Named(mut name) => {
            name.set_span(name.span().located_at(span));
            Member::Named(name)
        }
        Member::Unnamed(Index { index, .. }) => Member::Unnamed(Index { index, span }),
    }
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    /// The expression of a path into `struct Owner { user_id, user, r#type }`, or the error.
    fn named(path: &str) -> std::result::Result<String, String> {
        let fields: syn::FieldsNamed = parse_quote!({ user_id: String, user: User, r#type: u8 });
        resolve(path, &Fields::Named(fields))
    }

    fn tuple(path: &str) -> std::result::Result<String, String> {
        let fields: syn::FieldsUnnamed = parse_quote!((String, (u8, u8)));
        resolve(path, &Fields::Unnamed(fields))
    }

    fn resolve(path: &str, fields: &Fields) -> std::result::Result<String, String> {
        let owner = parse_quote!(Owner);
        let resolved =
            syn::parse_str::<FieldPath>(path).and_then(|path| path.resolve(&owner, fields));
        resolved
            .map(|tokens| tokens.to_string().replace(' ', ""))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_path_is_a_field_and_fields_of_it_in_or_without_quotes() {
        for (path, expression) in [
            ("user_id", "self.user_id"),
            (r#""user_id""#, "self.user_id"),
            ("user.id", "self.user.id"),
            (r#""user.address.0""#, "self.user.address.0"),
            ("type", "self.r#type"),
            ("r#type", "self.r#type"),
            ("user.type", "self.user.r#type"),
            ("r#user.r#id", "self.user.r#id"),
        ] {
            assert_eq!(named(path).as_deref(), Ok(expression), "{path}");
        }
    }

    #[test]
    fn fields_of_tuple_structs_go_by_index() {
        for (path, expression) in [
            ("0", "self.0"),
            ("1.0", "self.1.0"),
            ("1.0.2", "self.1.0.2"),
            (r#""1.0""#, "self.1.0"),
            ("0.id", "self.0.id"),
        ] {
            assert_eq!(tuple(path).as_deref(), Ok(expression), "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for path in [
            "",
            "self",
            "self.user",
            "crate",
            "_",
            "user.",
            ".user",
            "user..id",
            "user id",
            "user()",
            "1e5",
            "0u8",
            "-1",
            r#""""#,
            r#""user id""#,
            r#""\"user\"""#,
            "99999999999",
        ] {
            assert!(syn::parse_str::<FieldPath>(path).is_err(), "{path}");
        }
    }

    #[test]
    fn a_field_that_is_not_there_is_told_those_that_are() {
        assert_eq!(
            named("id").unwrap_err(),
            "`Owner` has no field `id`: it has `user_id`, `user`, `r#type`"
        );
        assert_eq!(
            tuple("2").unwrap_err(),
            "`Owner` has no field `2`: it has `0`, `1`"
        );
        assert_eq!(
            resolve("id", &Fields::Unit).unwrap_err(),
            "`Owner` has no field `id`: it has none"
        );
    }
}

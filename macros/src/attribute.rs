//! Reads `#[event(..)]`.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Attribute, Error, Ident, LitStr, Meta, Path, Result, Token, Type};

use crate::field::FieldPath;
use crate::name;

/// The settings of one event type, as far as they could be read: what could not is among the
/// errors.
pub(crate) struct Settings {
    pub(crate) event_type: Option<LitStr>,
    pub(crate) version: Option<LitStr>,
    pub(crate) key: Option<FieldPath>,
    pub(crate) subject: Option<FieldPath>,
    /// The type of the version before.
    pub(crate) from: Option<Type>,
    /// Where the Avro schema is: in a file, or (`None`) in the type's `AvroSchema`.
    pub(crate) avro: Option<Option<LitStr>>,
    /// That it is a Protobuf message, and in which file it is declared.
    pub(crate) protobuf: Option<Option<LitStr>>,
    /// Whether its data have a JSON Schema, and where that is said.
    pub(crate) schema: Option<Span>,
    /// Whether its data have rules of garde, and where that is said.
    pub(crate) garde: Option<Span>,
    pub(crate) krate: Option<Path>,
}

/// Everything that is wrong, so that one compilation reports it all.
#[derive(Default)]
pub(crate) struct Errors(Option<Error>);

impl Errors {
    pub(crate) fn push(&mut self, error: Error) {
        match &mut self.0 {
            Some(errors) => errors.combine(error),
            None => self.0 = Some(error),
        }
    }

    /// The value, or its error kept.
    pub(crate) fn take<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    pub(crate) fn finish(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

/// What an enum may be told: where polybus is found. The rest is its variants'.
pub(crate) fn krate_of_enum(attributes: &[Attribute], errors: &mut Errors) -> Option<Path> {
    let mut given = Given::default();
    for attribute in of_event(attributes) {
        given.read(attribute, errors);
    }
    for setting in given.0.iter().filter(|setting| setting.name != CRATE.name) {
        let what = format!(
            "`{}` belongs on the struct of each variant: an enum's events are those of its variants",
            setting.name
        );
        errors.push(Error::new(setting.name.span(), what));
    }
    given.path(CRATE, errors)
}

impl Settings {
    /// Reads the `#[event(..)]` attributes of a struct. Several count as one.
    pub(crate) fn parse(owner: &Ident, attributes: &[Attribute], errors: &mut Errors) -> Self {
        let attributes: Vec<_> = of_event(attributes).collect();
        let mut given = Given::default();
        for attribute in &attributes {
            given.read(attribute, errors);
        }
        if !given.has(TYPE) {
            let span = attributes
                .first()
                .map_or(owner.span(), |first| first.path().span());
            errors.push(missing_type(owner, span));
        }
        Self {
            event_type: given.string(TYPE, name::check_event_type, errors),
            version: given.string(VERSION, name::check_version, errors),
            key: given.field(KEY, errors),
            subject: given.field(SUBJECT, errors),
            from: given.ty(FROM, errors),
            avro: given.flag_or_file(AVRO, errors),
            protobuf: given.flag_or_file(PROTOBUF, errors),
            schema: given.flag(SCHEMA, errors),
            garde: given.flag(GARDE, errors),
            krate: given.path(CRATE, errors),
        }
    }
}

/// Those attributes that are `#[event(..)]`.
pub(crate) fn of_event<'a>(
    attributes: impl IntoIterator<Item = &'a Attribute>,
) -> impl Iterator<Item = &'a Attribute> {
    attributes
        .into_iter()
        .filter(|attribute| attribute.path().is_ident("event"))
}

/// A setting that may be given: its name, and an example of a value.
#[derive(Clone, Copy)]
struct Known {
    name: &'static str,
    example: &'static str,
}

const TYPE: Known = Known::new("type", r#""user.created""#);
const VERSION: Known = Known::new("version", r#""1.0.0""#);
const KEY: Known = Known::new("key", "user_id");
const SUBJECT: Known = Known::new("subject", "user_id");
const FROM: Known = Known::new("from", "UserCreatedV1");
const SCHEMA: Known = Known::new("schema", "");
const GARDE: Known = Known::new("garde", "");
const CRATE: Known = Known::new("crate", r#""my_service::polybus""#);
const AVRO: Known = Known::new("avro", r#""user.avsc""#);
const PROTOBUF: Known = Known::new("protobuf", r#""user.proto""#);
const ALL: [Known; 10] = [
    TYPE, VERSION, KEY, SUBJECT, FROM, SCHEMA, GARDE, AVRO, PROTOBUF, CRATE,
];

impl Known {
    const fn new(name: &'static str, example: &'static str) -> Self {
        Self { name, example }
    }

    fn error(self, span: Span, what: &str) -> Error {
        let Self { name, example } = self;
        Error::new(span, format!("`{name}` {what}: `{name} = {example}`"))
    }
}

/// One `name = value`, its value not looked at yet.
struct Setting {
    name: Ident,
    /// Empty if there is none, which shows what was meant.
    value: TokenStream,
    /// Whether something stands behind the name.
    has_value: bool,
}

impl Parse for Setting {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        // `type` and `crate` are keywords.
        let name = input.call(Ident::parse_any)?;
        let has_value = input.parse::<Option<Token![=]>>()?.is_some();
        let rest = input.parse::<TokenStream>()?;
        let given = has_value || !rest.is_empty();
        if ALL.iter().any(|known| name == known.name) {
            let value = if has_value { rest } else { TokenStream::new() };
            return Ok(Self {
                name,
                value,
                has_value: given,
            });
        }
        let names = ALL.map(|known| format!("`{}`", known.name)).join(", ");
        Err(Error::new(
            name.span(),
            format!("`{name}` is no setting of `#[event(..)]`: it has {names}"),
        ))
    }
}

impl Setting {
    /// The value as something, or the error that says what the setting `takes`.
    fn parse_value<T: Parse>(&self, known: Known, takes: &str) -> Result<T> {
        if self.value.is_empty() {
            return Err(known.error(self.name.span(), "needs a value"));
        }
        syn::parse2(self.value.clone()).map_err(|_| known.error(self.value.span(), takes))
    }
}

/// The settings that are given, each once.
#[derive(Default)]
struct Given(Vec<Setting>);

impl Given {
    fn read(&mut self, attribute: &Attribute, errors: &mut Errors) {
        let list = match &attribute.meta {
            Meta::Path(_) => return, // As good as `#[event()]`.
            Meta::List(list) => list,
            Meta::NameValue(_) => {
                let what = "write the settings in parentheses: `#[event(type = \"user.created\")]`";
                errors.push(Error::new(attribute.path().span(), what));
                return;
            }
        };
        for tokens in split_at_commas(list.tokens.clone()) {
            let Some(setting) = errors.take(syn::parse2::<Setting>(tokens)) else {
                continue;
            };
            if self.0.iter().any(|other| other.name == setting.name) {
                let what = format!("`{}` is given twice", setting.name);
                errors.push(Error::new(setting.name.span(), what));
            } else {
                self.0.push(setting);
            }
        }
    }

    fn has(&self, known: Known) -> bool {
        self.find(known).is_some()
    }

    fn find(&self, known: Known) -> Option<&Setting> {
        self.0.iter().find(|setting| setting.name == known.name)
    }

    fn string(
        &self,
        known: Known,
        check: fn(&str) -> std::result::Result<(), String>,
        errors: &mut Errors,
    ) -> Option<LitStr> {
        let setting = self.find(known)?;
        let text: LitStr = errors.take(setting.parse_value(known, "takes a string"))?;
        errors.take(check(&text.value()).map_err(|why| Error::new(text.span(), why)))?;
        Some(text)
    }

    fn field(&self, known: Known, errors: &mut Errors) -> Option<FieldPath> {
        let setting = self.find(known)?;
        errors.take(setting.parse_value(known, "takes the name of a field"))
    }

    /// Where a setting without a value stands, if it does.
    fn flag(&self, known: Known, errors: &mut Errors) -> Option<Span> {
        let setting = self.find(known)?;
        if setting.has_value {
            let name = known.name;
            let what = format!("`{name}` takes no value: `#[event({name})]`");
            errors.push(Error::new(setting.name.span(), what));
        }
        Some(setting.name.span())
    }

    fn ty(&self, known: Known, errors: &mut Errors) -> Option<Type> {
        let setting = self.find(known)?;
        errors.take(setting.parse_value(known, "takes the type of the version before"))
    }

    /// A setting that may stand alone, or name a file.
    fn flag_or_file(&self, known: Known, errors: &mut Errors) -> Option<Option<LitStr>> {
        let setting = self.find(known)?;
        if setting.value.is_empty() {
            return Some(None);
        }
        let file = errors.take(setting.parse_value(known, "takes the path of a file"))?;
        Some(Some(file))
    }

    fn path(&self, known: Known, errors: &mut Errors) -> Option<Path> {
        let setting = self.find(known)?;
        let text: LitStr = errors.take(setting.parse_value(known, "takes a string"))?;
        let path = text
            .parse_with(Path::parse_mod_style)
            .map_err(|_| known.error(text.span(), "takes the path of a crate or module"));
        errors.take(path)
    }
}

fn missing_type(owner: &Ident, span: Span) -> Error {
    let suggestion = name::suggest_event_type(&owner.unraw().to_string());
    Error::new(
        span,
        format!("`{owner}` needs an event type: `#[event(type = \"{suggestion}\")]`"),
    )
}

/// Each setting is parsed on its own, so that a fault in one does not hide those in others.
fn split_at_commas(tokens: TokenStream) -> Vec<TokenStream> {
    let mut settings = Vec::new();
    let mut current = TokenStream::new();
    for token in tokens {
        if matches!(&token, TokenTree::Punct(punct) if punct.as_char() == ',') {
            settings.push(std::mem::take(&mut current));
        } else {
            current.extend([token]);
        }
    }
    settings.push(current);
    settings.retain(|setting| !setting.is_empty());
    settings
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    fn parse(attributes: &[Attribute]) -> std::result::Result<Settings, Vec<String>> {
        let mut errors = Errors::default();
        let settings = Settings::parse(&parse_quote!(UserCreated), attributes, &mut errors);
        let messages = |error: Error| error.into_iter().map(|each| each.to_string()).collect();
        errors.finish().map(|()| settings).map_err(messages)
    }

    fn check_errors(attributes: &[Attribute], expected: &[&str]) {
        let Err(errors) = parse(attributes) else {
            panic!("nothing was wrong");
        };
        assert_eq!(errors.len(), expected.len(), "{errors:#?}");
        for (error, expected) in errors.iter().zip(expected) {
            assert!(
                error.contains(expected),
                "`{error}` does not contain `{expected}`"
            );
        }
    }

    #[test]
    fn several_attributes_count_as_one() {
        let settings = parse(&[
            parse_quote!(#[serde(rename_all = "camelCase")]),
            parse_quote!(#[event(type = "user.created", version = "2.0.0",)]),
            parse_quote!(#[event(crate = "::a::b", key = user_id)]),
        ]);
        let settings = settings.unwrap_or_else(|errors| panic!("{errors:?}"));
        assert_eq!(settings.event_type.unwrap().value(), "user.created");
        assert_eq!(settings.version.unwrap().value(), "2.0.0");
        assert_eq!(settings.krate, Some(parse_quote!(::a::b)));
        assert!(settings.key.is_some());
        assert!(settings.subject.is_none());
    }

    #[test]
    fn a_fault_in_one_setting_does_not_hide_those_in_others() {
        check_errors(
            &[
                parse_quote!(#[event(name = "x", type = "user.*", version = "1.0")]),
                parse_quote!(#[event(key = a b, subject, crate = "a-b")]),
            ],
            &[
                "`name` is no setting",
                "wildcard `*`",
                "`1.0` is not a version",
                "`key` takes the name of a field",
                "`subject` needs a value",
                "`crate` takes the path",
            ],
        );
    }

    #[test]
    fn a_type_that_is_given_and_bad_is_not_also_missing() {
        for (attribute, error) in [
            (
                parse_quote!(#[event(type = user.created)]),
                "`type` takes a string",
            ),
            (
                parse_quote!(#[event(type("user.created"))]),
                "`type` needs a value",
            ),
            (parse_quote!(#[event(type =)]), "`type` needs a value"),
            (parse_quote!(#[event(type)]), "`type` needs a value"),
        ] {
            check_errors(&[attribute], &[error]);
        }
    }

    #[test]
    fn a_setting_is_given_once() {
        check_errors(
            &[
                parse_quote!(#[event(type = "a")]),
                parse_quote!(#[event(type = "b")]),
            ],
            &["`type` is given twice"],
        );
    }

    #[test]
    fn a_missing_type_is_suggested() {
        for attribute in [
            None,
            Some(parse_quote!(#[event()])),
            Some(parse_quote!(#[event(key = id)])),
        ] {
            let attributes: Vec<_> = attribute.into_iter().collect();
            check_errors(&attributes, &[r#"`#[event(type = "user.created")]`"#]);
        }
    }
}

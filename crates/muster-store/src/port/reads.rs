//! Declaration of the reads of a resource.

/// Declares the trait of a resource's reads, which may have a type as its parameter, and implements it for a test double that calls a gate
/// before the store.
macro_rules! reads {
    (
        $(#[$doc:meta])*
        pub trait $name:ident $(<$work:ident: $bound:ident>)? {
            $(
                $(#[$about:meta])*
                async fn $read:ident(&self $(, $argument:ident: $type:ty)* $(,)?) -> $answer:ty;
            )*
        }
    ) => {
        $(#[$doc])*
        #[async_trait::async_trait]
        pub trait $name $(<$work: $bound>)?: Send + Sync + 'static {
            $(
                $(#[$about])*
                async fn $read(&self $(, $argument: $type)*) -> $answer;
            )*
        }

        #[cfg(any(test, feature = "testing"))]
        #[async_trait::async_trait]
        impl<G: crate::testing::Gate $(, $work: $bound)?> $name $(<$work>)? for crate::testing::Gated<G>
        $(where
            dyn crate::port::Store: $name<$work>,)?
        {
            $(
                async fn $read(&self $(, $argument: $type)*) -> $answer {
                    self.behind_gate().await?.$read($($argument),*).await
                }
            )*
        }
    };
}

pub(super) use reads;

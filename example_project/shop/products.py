"""What the shop sells, and a cart's contents worked out for a page."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True)
class Product:
    slug: str
    name: str
    note: str
    price: Decimal


@dataclass(frozen=True)
class Line:
    product: Product
    quantity: int

    @property
    def cost(self) -> Decimal:
        return self.product.price * self.quantity


PRODUCTS = {
    product.slug: product
    for product in (
        Product("tea", "Oolong tea", "100 g, lightly roasted", Decimal("8.50")),
        Product("bread", "Rye bread", "Baked this morning", Decimal("5.20")),
        Product("honey", "Lime honey", "From the roof's own bees", Decimal("9.00")),
        Product("candle", "Beeswax candle", "Burns for a long evening", Decimal("6.40")),
    )
}


def lines(cart: Mapping[str, int]) -> list[Line]:
    """The lines of a cart, which maps slugs to quantities."""
    return [Line(PRODUCTS[slug], quantity) for slug, quantity in cart.items()]

-- The tables of the restaurant. `id` of an order is made by the client and is what makes placing an order idempotent.
CREATE TABLE dish (
    id int PRIMARY KEY,
    category text NOT NULL,
    name text NOT NULL,
    description text NOT NULL,
    price_cents int NOT NULL CHECK (price_cents > 0)
);

CREATE TABLE orders (
    id uuid PRIMARY KEY,
    number int GENERATED ALWAYS AS IDENTITY UNIQUE,
    customer text NOT NULL,
    table_number int NOT NULL,
    status text NOT NULL DEFAULT 'placed' CHECK (status IN ('placed', 'cooking', 'ready', 'served')),
    total_cents int NOT NULL,
    taken_by text NOT NULL,
    placed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX orders_newest ON orders (placed_at DESC);
CREATE INDEX orders_by_status ON orders (status, placed_at DESC);

CREATE TABLE order_line (
    order_id uuid NOT NULL REFERENCES orders ON DELETE CASCADE,
    dish_id int NOT NULL REFERENCES dish,
    quantity int NOT NULL CHECK (quantity BETWEEN 1 AND 20),
    price_cents int NOT NULL,
    PRIMARY KEY (order_id, dish_id)
);

-- Counted up by each order, and protected by no key: an order that was carried out twice would show here.
CREATE TABLE dish_sales (
    dish_id int PRIMARY KEY REFERENCES dish,
    sold int NOT NULL DEFAULT 0
);

INSERT INTO dish (id, category, name, description, price_cents) VALUES
    (1, 'Starters', 'Tomato soup', 'With basil and a spoon of crème fraîche', 590),
    (2, 'Starters', 'Burrata', 'Peach, rocket, hazelnut', 1190),
    (3, 'Starters', 'Charred leeks', 'Romesco and almonds', 890),
    (4, 'Mains', 'Mushroom risotto', 'Carnaroli, porcini, aged parmesan', 1690),
    (5, 'Mains', 'Sea bass', 'Fennel, saffron potatoes', 2390),
    (6, 'Mains', 'Lamb shoulder', 'Eight hours in the oven, white beans', 2290),
    (7, 'Mains', 'Aubergine parmigiana', 'As in Naples, nearly', 1490),
    (8, 'Desserts', 'Lemon tart', 'Burnt meringue', 790),
    (9, 'Desserts', 'Chocolate mousse', 'Olive oil, sea salt', 750),
    (10, 'Drinks', 'Sparkling water', '0.75 l', 490),
    (11, 'Drinks', 'House red', '0.25 l, Montepulciano', 690),
    (12, 'Drinks', 'Espresso', 'Single origin', 290);
INSERT INTO dish_sales (dish_id) SELECT id FROM dish;

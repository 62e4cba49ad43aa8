"""The three training stages, inside RecBole's trainer."""

-- A horizon only moves forward: what is gone is gone.
INSERT INTO fer.retention (before_day)
SELECT :before_day
WHERE NOT EXISTS (SELECT FROM fer.retention WHERE before_day >= :before_day)

-- Services of type smtp.
ALTER TABLE services DROP CONSTRAINT services_type_check,
    ADD CONSTRAINT services_type_check CHECK (type IN ('rest', 'amqp', 'soap', 'smtp'));

-- One change of the schema at a time.
LOCK TABLE nodeledger.migration IN SHARE ROW EXCLUSIVE MODE;

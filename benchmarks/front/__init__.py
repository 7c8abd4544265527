"""Which front should the gateway have: variants of its process, measured on the whole path beside the stock one."""

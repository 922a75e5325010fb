"""ConvLSTM layers in bfloat16 on a processor with matrix units (AMX): a whole sequence in one call of C."""

"""Every tolerance that is not mere equality in float64, and why it is what it is."""

# Largest difference of logits, fused to unfused, relative to the largest logit. Folding reorders sums of up to 10
# thousand products (25 taps x 400 channels) through some 40 layers; seen are 2e-6 on random statistics, a mistake costs
# 1e-2 and more.
FUSED_FP32 = 5e-5

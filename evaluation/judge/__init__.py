"""A vision-language model as judge of pairs of images, over any endpoint that speaks the OpenAI chat protocol."""
